"""docs/reference/settings.md says what the models say."""

from __future__ import annotations

from config.loading import ROOT, keys
from config.reference import reference


def row(key: str) -> list[str]:
    (line,) = [line for line in reference().splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in line.removesuffix("|").removeprefix("|").split(" | ")]


def test_the_document_is_up_to_date() -> None:
    document = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert document == reference(), "run: python -m config.reference > docs/reference/settings.md"


def test_every_setting_has_a_row_with_a_meaning() -> None:
    every = list(keys())
    parts_of_images = {key for key in every if key.startswith("images.") and key.count(".") == 2}
    whole = [key for key in every if key not in parts_of_images]
    settings = [key for key in whole if not any(other.startswith(f"{key}.") for other in whole)]
    assert len(settings) > 40
    for key in settings:
        assert row(key)[3], key


def test_defaults_types_and_variables_are_told() -> None:
    assert row("deploy.attempts")[1:3] == ["integer", "`4`"]
    assert row("components.redis.members")[2] == "`6`"
    assert row("storage.nfs.server")[2] == "**required**"
    assert row("storage.nfs.server")[4] == "`ISA_STORAGE__NFS__SERVER`"
    assert row("licences.emqx")[1] == "`apache` or `enterprise`"
    assert row("autoscaling.services[].max_replicas")[2] == "`10`"
    assert row("autoscaling.services[].max_replicas")[4] == ""
    assert row("images.redis")[1] == "image"
