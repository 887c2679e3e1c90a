"""What belongs to no database, and was set in a way or in an encoding that few use, costs a backup nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.postgresql.dumps.filling import Server, prepare
from errors import PermanentError

from .conftest import PASSWORD, Pair

pytestmark = pytest.mark.integration

TENANT = "CREATE ROLE tenant LOGIN PASSWORD 'of-nobody'"
LATIN = "CREATE DATABASE latin OWNER tenant ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
MEET = ('"€"', '" ac"')  # the euro sign is U+20AC, a space U+0020


@pytest.fixture
def odd(pair: Pair) -> Iterator[Pair]:
    run = pair.primary.run
    run(TENANT, LATIN, *(f"CREATE DATABASE {name}" for name in MEET))
    yield pair
    pair.drop_kept()
    run(*(f"DROP DATABASE {name} (FORCE)" for name in ("latin", *MEET)), "DROP ROLE tenant")


def test_what_is_set_from_a_database_of_another_encoding_is_named_and_costs_no_other(
    odd: Pair,
) -> None:
    with odd.primary.connect("latin", user="tenant") as client:
        client.execute("ALTER ROLE tenant SET application_name = 'é'")
        client.execute("ALTER DATABASE latin SET application_name = 'é'")
        client.execute("COMMENT ON DATABASE latin IS 'é'")
    with odd.primary.connect("latin") as client:
        client.execute("COMMENT ON ROLE tenant IS 'é'")
    backup = odd.take()
    assert backup.manifest.missing == tuple(
        f"globals: {what} is not valid UTF-8, so no other server would accept it"
        for what in ("comment on role tenant", "setting application_name of role tenant")
    )
    assert odd.prove(backup) == ()
    assert odd.restore(backup, "database latin")[1] == ()
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'latin'"
    assert odd.primary.ask(query, "latin") == "é"


def test_a_list_that_was_set_without_spaces_comes_back_equal(odd: Pair) -> None:
    with odd.primary.connect("latin", user="tenant") as client:
        client.execute("SELECT set_config('search_path', 'one,\"T wo\"  ,three', false)")
        client.execute("ALTER ROLE tenant SET search_path FROM CURRENT")
        client.execute("ALTER DATABASE latin SET search_path FROM CURRENT")
    backup = odd.take()
    assert odd.prove(backup) == ()
    odd.primary.run("ALTER ROLE tenant RESET ALL")
    assert [one.item for one in odd.differences(backup, "globals")] == ["settings of roles"]
    assert odd.restore(backup, "globals", "database latin")[1] == ()


def test_databases_whose_names_look_alike_have_a_dump_each(odd: Pair) -> None:
    backup = odd.take()
    dumps = [one.name for one in backup.manifest.artefacts if one.name.startswith("databases/")]
    assert len(set(dumps)) == len(dumps)
    assert odd.prove(backup) == ()


def test_a_role_that_only_has_the_name_of_a_restore_s_own_keeps_its_objects(odd: Pair) -> None:
    server = Server(odd.access, odd.primary.endpoint, 180000, PASSWORD)
    name = "isa_cloud_restore_deadbeef"
    odd.primary.run(
        f"CREATE ROLE {name}", "CREATE SCHEMA kept", f"ALTER SCHEMA kept OWNER TO {name}"
    )
    try:
        with pytest.raises(
            PermanentError, match=f"role {name} .* owns objects in database postgres"
        ):
            prepare(server)
        assert odd.primary.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'kept'") == 1
    finally:
        odd.primary.run("DROP SCHEMA kept", f"DROP ROLE {name}")
