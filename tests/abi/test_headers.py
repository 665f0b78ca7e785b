"""Every constant and every layout of paravirt.abi, against the C headers that they describe."""

import ctypes
import importlib
import re
from types import ModuleType

import pytest

from paravirt.abi import _cheader

from . import _headers

MODULES = [name for name in _headers.HEADERS if "#" not in name]

# Where CamelCase does not give back the name in C.
C_TAGS = {"SringHeader": "struct probe_sring"}
# Members that Python cannot name as C does.
C_MEMBERS = {"in_": "in"}


@pytest.fixture(scope="module", autouse=True)
def headers_are_here() -> None:
    try:
        _headers.include_directory()
    except _headers.Unavailable as why:
        pytest.skip(str(why))


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"paravirt.abi.{name}")


def c_name(module: str, key: str) -> str:
    return f"XEN_{key}" if module == "errno" else key


def c_tag(layout: _cheader.Layout) -> str:
    """The C type that a CamelCase class stands for."""
    name = layout.__name__
    if name in C_TAGS:
        return C_TAGS[name]
    kind = "union" if name == "GrantEntryV2" else "struct"
    return f"{kind} {re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower()}"


# Numbers that Xen uses only inside itself: the headers hide them from everybody else.
INTERNAL = {("errno", "EINTR"), ("errno", "ERESTART")}


@pytest.mark.parametrize("name", MODULES)
def test_integers_have_the_headers_values(name: str) -> None:
    ours = {key: value for key, value in _cheader.constants(name) if (name, key) not in INTERNAL}
    lines = [f'printf("{key} %llu\\n", (unsigned long long)({c_name(name, key)}));' for key in ours]
    theirs = dict(line.split() for line in _headers.run(lines))
    assert {key: value % 2**64 for key, value in ours.items()} == {k: int(v) for k, v in theirs.items()}


@pytest.mark.parametrize("name", MODULES)
def test_no_number_of_the_header_is_missing(name: str) -> None:
    headers = [header for key, header in _headers.HEADERS.items() if key.split("#")[0] == name]
    ours = {c_name(name, key) for key, _ in _cheader.constants(name)}
    missing = {
        key
        for header in headers
        for key in _headers.integers(header.path) - ours
        if re.fullmatch(header.required, key) and not re.fullmatch(header.optional, key)
    }
    assert not missing


@pytest.mark.parametrize("name", MODULES)
def test_texts_have_the_headers_values(name: str) -> None:
    ours = {
        key: value
        for key, value in vars(module_of(name)).items()
        if isinstance(value, str) and not key.startswith("__")
    }
    lines = [f'printf("{key} %s\\n", {key});' for key in ours]
    theirs = dict(line.split(" ", 1) for line in _headers.run(lines))
    assert theirs == ours


@pytest.mark.parametrize("name", [name for name in MODULES if any(True for _ in _cheader.structures(name))])
def test_structures_have_the_headers_layout(name: str) -> None:
    ours, lines = {}, []
    for layout in _cheader.structures(name):
        tag = c_tag(layout)
        size = "offsetof(struct probe_sring, ring)" if tag == "struct probe_sring" else f"sizeof({tag})"
        lines.append(f'printf("{layout.__name__} 0 %zu\\n", {size});')
        ours[layout.__name__] = (0, ctypes.sizeof(layout))
        for path, offset, length in _cheader.members(layout):
            c_path = ".".join(C_MEMBERS.get(part, part) for part in path.split("."))
            if (layout.__name__, path) == ("SringHeader", "pad"):
                c_path = "__pad"
            lines.append(
                f'printf("{layout.__name__}.{path} %zu %zu\\n",'
                f" offsetof({tag}, {c_path}), sizeof((({tag} *)0)->{c_path}));"
            )
            ours[f"{layout.__name__}.{path}"] = (offset, length)
    printed = [line.split() for line in _headers.run(lines)]
    assert {key: (int(offset), int(size)) for key, offset, size in printed} == ours


def test_the_numbers_that_xen_keeps_to_itself() -> None:
    text = (_headers.include_directory() / "xen/errno.h").read_text()
    hidden = "".join(re.findall(r"#ifdef __XEN__[^\n]*\n(.*?)#endif", text, flags=re.DOTALL))
    theirs = {key: int(value) for key, value in re.findall(r"XEN_ERRNO\((\w+),\s*(\d+)\)", hidden)}
    errno = module_of("errno")
    assert theirs == {key: getattr(errno, key) for module, key in INTERNAL if module == "errno"}


def test_xenstore_knows_the_same_errors() -> None:
    count = "sizeof(xsd_errors) / sizeof(xsd_errors[0])"
    loop = f"for (const struct xsd_errors *e = xsd_errors; e < xsd_errors + {count}; e++)"
    printed = _headers.run([loop, r'    printf("%s %d\n", e->errstring, e->errnum);'])
    theirs = [(key, int(value)) for key, value in (line.split() for line in printed)]
    assert list(module_of("io.xs_wire").XSD_ERRORS.items()) == theirs


def test_the_table_of_hypercalls_is_the_headers_list() -> None:
    prefix = "__HYPERVISOR_"
    names = {name.removeprefix(prefix) for name in _headers.integers("xen.h") if name.startswith(prefix)}
    table = module_of("xen").HYPERCALLS
    assert set(table) == names
    assert len(set(table.values())) == len(table)
