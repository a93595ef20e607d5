"""Can a chat template see what messages say? If it only copies their contents, text can be laid out without it."""

from collections.abc import Iterator

from jinja2 import nodes

_COPYING_FILTERS = {"trim", "string"}  # contents are stripped text already


def copies_contents(tree: nodes.Template) -> bool:
    """True only if it is proved that a template writes each content as it is and never looks at it.

    The proof: whatever stands for a message is used for `['role']` and `['content']` alone, and a content only where
    text is put together for output. Templates that assign messages to variables or test contents are not proved.
    """
    messages = {"messages"}
    single: set[str] = set()
    for loop in tree.find_all(nodes.For):
        if _is_list(loop.iter, messages):
            if not isinstance(loop.target, nodes.Name):
                return False
            single.add(loop.target.name)
    return all(_harmless(path, messages, single) for path in _paths(tree, ()))


def _paths(node: nodes.Node, above: tuple[nodes.Node, ...]) -> Iterator[tuple[nodes.Node, ...]]:
    """Each name in the template, with the nodes around it, innermost last."""
    here = (*above, node)
    if isinstance(node, nodes.Name):
        yield here
    for child in node.iter_child_nodes():
        yield from _paths(child, here)


def _is_list(node: nodes.Node, messages: set[str]) -> bool:
    """`messages` or a slice of it."""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = node.node
    return isinstance(node, nodes.Name) and node.name in messages


def _harmless(path: tuple[nodes.Node, ...], messages: set[str], single: set[str]) -> bool:
    *above, name = path
    assert isinstance(name, nodes.Name)
    if name.ctx == "store":
        return name.name not in messages and (name.name not in single or isinstance(above[-1], nodes.For))
    if name.name in messages:
        while isinstance(above[-1], nodes.Getitem) and isinstance(above[-1].arg, nodes.Slice):
            above.pop()
        parent = above[-1]
        if isinstance(parent, nodes.For) or (isinstance(parent, nodes.Filter) and parent.name in ("length", "count")):
            return True
        if not (isinstance(parent, nodes.Getitem) and isinstance(parent.arg, nodes.Const | nodes.Neg)):
            return False
        above.pop()
    elif name.name not in single:
        return True
    access = above.pop()
    if isinstance(access, nodes.Getattr):
        key = access.attr
    elif isinstance(access, nodes.Getitem) and isinstance(access.arg, nodes.Const):
        key = access.arg.value
    else:
        return False
    return key == "role" or (key == "content" and _only_written(above))


def _only_written(above: list[nodes.Node]) -> bool:
    """The way up to the output is concatenation."""
    for node in reversed(above):
        if isinstance(node, nodes.Output):
            return True
        copied = isinstance(node, nodes.Filter) and node.name in _COPYING_FILTERS and not node.args
        if not copied and not isinstance(node, nodes.Add | nodes.Concat):
            return False
    return False
