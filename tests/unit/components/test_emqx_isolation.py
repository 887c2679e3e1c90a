"""What a scratch broker gets of an export: nothing that is switched on and calls out, and all that is compared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.emqx.exports.hocon import Scalar, UnknownForm, parse, render
from components.emqx.exports.isolation import isolated, switches
from components.emqx.fingerprint import LISTS
from components.emqx.restore import isolated_or_no_verdict, scratch
from errors import TemporaryError

# In the form of hocon_pp.erl: sorted keys, quotes where they must be, strings of several lines indented.
EXPORT = '''actions {
  http {
    forward {
      connector = hook
      enable = true
      parameters {
        body = """~
          {
            "a": "${payload}"
          }~"""
        headers {"content-type" = "application/json"}
        path = "/x?y=${topic}"
      }
    }
    off {connector = hook, enable = false}
  }
}
authentication = [
  {
    backend = built_in_database
    mechanism = password_based
    password_hash_algorithm {name = sha256, salt_position = suffix}
    user_id_type = username
  },
  {
    backend = http
    body {username = "${username}"}
    mechanism = password_based
    method = post
    url = "http://10.0.0.1:80/auth"
  }
]
authorization {
  deny_action = ignore
  no_match = allow
  sources = [
    {enable = true, type = built_in_database},
    {enable = true, type = http, url = "http://10.0.0.1/acl"}
  ]
}
cluster {links = [{name = other, server = "10.0.0.1:1883"}]}
connectors {
  http {
    hook {
      enable = true
      headers {}
      pool_size = 8
      ssl {enable = false, verify = verify_peer}
      url = "http://10.0.0.1:80"
    }
  }
  mqtt {
    plant {
      description = "o'brien \\"x\\" {[=,#"
      server = "10.0.0.1:1883"
    }
  }
}
exhook {servers = [{enable = true, name = spy, url = "http://10.0.0.1:9000"}]}
gateway {exproto {handler {address = "http://10.0.0.1:9001"}}}
prometheus {push_gateway {enable = true, url = "http://10.0.0.1:9091"}}
retainer {enable = true, max_payload_size = 1MB}
rule_engine {
  rules {
    r1 {
      actions = ["http:forward"]
      sql = """SELECT * FROM "t/#" """
    }
  }
}
sources {mqtt {ingress {connector = plant, enable = true, parameters {topic = "t/#"}}}}
'''


def test_what_emqx_writes_is_read_and_written_again_as_it_was() -> None:
    tree = parse(EXPORT)
    assert parse(render(tree)) == tree
    connectors: Any = tree["connectors"]
    assert connectors["http"]["hook"]["url"] == Scalar('"http://10.0.0.1:80"')
    actions: Any = tree["actions"]
    assert actions["http"]["forward"]["parameters"]["body"].source.startswith('"""~\n')
    rules: Any = tree["rule_engine"]
    assert rules["rules"]["r1"]["sql"].source == '"""SELECT * FROM "t/#" """'


def test_json_is_read_too() -> None:
    document = {
        "connectors": {"mqtt": {"a.b": {"enable": True, "n": 1.5, "l": ["x", {"y": None}]}}}
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in document.items())
    assert render(parse(text)) == text


@pytest.mark.parametrize(
    "source",
    [
        'include "/etc/passwd"',
        'include required(file("/opt/emqx/etc/acl.conf"))',
        "connectors = ${rule_engine}",
        "connectors.http.x.enable = true",
        "connectors {http {}}\nconnectors {mqtt {}}",
        "connectors += {x = 1}",
        "connectors {http {x {enable = true}}",
        "connectors {http {x {enable = true}}}}",
        "connectors =",
        "connectors http",
        'a = "never ends',
        "a = " + "[" * 5000,
        "a {" * 5000,
        "= 1",
        "connectors = 1",
        "connectors {http = [1]}",
        "authentication = on",
    ],
)
def test_what_emqx_does_not_write_is_no_verdict_since_nobody_knows_what_it_would_switch_on(
    source: str,
) -> None:
    with pytest.raises(UnknownForm):
        isolated(source)
    with pytest.raises(TemporaryError, match="the export cannot be loaded into a scratch broker"):
        isolated_or_no_verdict(source)


def test_nothing_that_calls_out_comes_along_switched_on() -> None:
    tree: Any = parse(isolated(EXPORT))
    assert set(tree) == {
        "actions", "authentication", "authorization", "connectors", "retainer", "rule_engine", "sources",
    }  # fmt: skip
    for section in ("actions", "connectors", "sources"):
        for named in tree[section].values():
            assert all(one["enable"] == Scalar("false") for one in named.values()), section
    assert [one["backend"].text for one in tree["authentication"]] == ["built_in_database"]
    assert [one["type"].text for one in tree["authorization"]["sources"]] == ["built_in_database"]


def test_an_authenticator_that_stands_alone_is_looked_at_too() -> None:
    assert (
        isolated('authentication {backend = http, url = "http://10.0.0.1"}')
        == "authentication = []\n"
    )
    assert "built_in_database" in isolated("authentication {backend = built_in_database}")


def test_definitions_come_along_as_they_are_but_for_their_switch() -> None:
    then: Any = parse(EXPORT)
    now: Any = parse(isolated(EXPORT))
    hook, was = now["connectors"]["http"]["hook"], then["connectors"]["http"]["hook"]
    assert {**hook, "enable": was["enable"]} == was
    assert hook["ssl"]["enable"] == Scalar("false")  # an own switch, and as it was
    assert now["rule_engine"] == then["rule_engine"]


def test_what_was_on_is_compared_as_on_and_what_was_off_as_off() -> None:
    then = switches(EXPORT)
    for section, kind, name, on in (
        ("connectors", "http", "hook", True),
        ("connectors", "mqtt", "plant", True),  # on where it does not say
        ("actions", "http", "forward", True),
        ("actions", "http", "off", False),
        ("sources", "mqtt", "ingress", True),
        ("bridges", "webhook", "forward", True),  # as the older API calls an action
        ("bridges", "mqtt", "ingress", True),
    ):
        row = {"type": kind, "name": name, "enable": False}
        assert then.restored(section, row)["enable"] is on, (section, name)


def test_what_the_set_does_not_know_and_other_lists_are_compared_as_they_are() -> None:
    then = switches(EXPORT)
    row = {"type": "http", "name": "new", "enable": False}
    assert then.restored("connectors", row) == row
    assert then.restored("rules", {"id": "r1", "enable": False}) == {"id": "r1", "enable": False}
    assert {"connectors", "actions", "sources", "bridges"} <= set(LISTS)


def test_a_scratch_broker_reports_nothing_to_its_makers() -> None:
    settings: Any = None
    (broker,) = scratch(settings, settings, "p")
    assert broker.environ["EMQX_TELEMETRY__ENABLE"] == "false"
