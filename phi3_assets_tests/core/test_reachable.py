"""What is needed is what something points to, and all that it was made of."""

from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.reachable import Standing, reachable


def ref(kind: str, number: int, content: int | None = None) -> ArtefactRef:
    return ArtefactRef(kind, f"{number:064x}", f"{number if content is None else content:064x}")


def made(one: ArtefactRef, *sources: ArtefactRef, named: bool = True) -> Standing:
    inputs = {source.kind: source.digest for source in sources}
    return Standing(one, {source.kind: source for source in sources} if named else {}, inputs)


BASE, CORPUS, TWIN = ref("base_model", 1), ref("formatted_corpus", 2), ref("formatted_corpus", 3, content=2)
ADAPTER, MERGED, OTHER = ref("lora_adapter", 4), ref("merged_model", 5), ref("merged_model", 6)


def test_all_that_a_root_was_made_of_is_needed() -> None:
    standing = [made(BASE), made(CORPUS), made(TWIN), made(ADAPTER, BASE, CORPUS), made(MERGED, ADAPTER), made(OTHER)]
    assert reachable(standing, {MERGED}) == {BASE, CORPUS, ADAPTER, MERGED}
    assert reachable(standing, {OTHER}) == {OTHER}
    assert reachable(standing, []) == set()


def test_without_names_everything_of_that_content_is_kept() -> None:
    """Manifests of old homes give their inputs by content alone; which of two twins it was is not known."""
    standing = [made(BASE), made(CORPUS), made(TWIN), made(ADAPTER, BASE, CORPUS, named=False), made(OTHER)]
    assert reachable(standing, {ADAPTER}) == {BASE, CORPUS, TWIN, ADAPTER}


def test_a_named_input_that_is_gone_is_replaced_by_its_twin() -> None:
    standing = [made(BASE), made(TWIN), made(ADAPTER, BASE, CORPUS)]
    assert reachable(standing, {ADAPTER}) == {BASE, TWIN, ADAPTER}


def test_roots_that_do_not_stand_say_nothing() -> None:
    assert reachable([made(BASE)], {MERGED}) == set()


def test_a_ring_ends() -> None:
    assert reachable([made(BASE, MERGED), made(MERGED, BASE)], {BASE}) == {BASE, MERGED}
