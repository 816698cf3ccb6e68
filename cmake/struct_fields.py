"""Reads csrc/gfl.h and writes struct_fields.h: where each field of an op's struct is, and which functions take it.

The bindings fill structs by field name with it, so that an argument is declared in one place. gfl.h is written for
this: one declaration a line, no macros inside structs.

    python cmake/struct_fields.py csrc/gfl.h struct_fields.h
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SCALARS = {"int32_t": "kInt32", "int64_t": "kInt64", "double": "kDouble"}
VIEWS = {
    "gfl_matrix": "kMatrix",
    "gfl_bins": "kBins",
    "gfl_flat": "kFlat",
    "gfl_maps": "kMaps",
    "gfl_levels": "kLevels",
    "gfl_ranges": "kRanges",
}
Struct = list[tuple[str, str]]  # of (type, name), a pointer's type ending in *

_STRUCT = re.compile(r"typedef struct (\w+) \{(.*?)\} \1;", re.DOTALL)
_FIELD = re.compile(r"(?:const )?(\w+)\s*(\*?)\s*(\w+)(\[\w+\])?")
_FUNCTION = re.compile(r"GFL_API (int|int64_t) gfl_(\w+)\(const gfl_device\* device, const (\w+)\* op\);")


def structs_of(header: str) -> dict[str, Struct]:
    structs = {}
    for name, body in _STRUCT.findall(header):
        declarations = [line.strip() for line in body.split(";") if line.strip()]
        fields = [_FIELD.fullmatch(declaration) for declaration in declarations]
        if None in fields:
            raise SystemExit(f"struct_fields: {name} has a declaration that is not 'type name': {declarations}")
        structs[name] = [(field[1] + field[2], field[3]) for field in fields if field is not None and not field[4]]
        structs[name] += [("levels[]", field[3]) for field in fields if field is not None and field[4]]
    return structs


def kind_of(type_name: str) -> str | None:
    return "kPointer" if type_name.endswith("*") else SCALARS.get(type_name) or VIEWS.get(type_name)


def fields_of(name: str, structs: dict[str, Struct]) -> list[tuple[str, str, str]]:
    """(name, kind, path) of each field that can be filled; the members of a struct of options are fields themselves."""
    fields = []
    for type_name, field in structs[name]:
        kind = kind_of(type_name)
        if kind is not None:
            fields.append((field, kind, field))
        elif type_name == "levels[]":
            fields.append((field, "kHeadLevels", field))
        else:
            fields += [(member, str(kind_of(inner)), f"{field}.{member}") for inner, member in structs[type_name]]
    names = [field for field, _, _ in fields]
    if len(set(names)) < len(names):
        raise SystemExit(f"struct_fields: {name} has two fields of one name: {sorted(names)}")
    return fields


def table(header: str) -> str:
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    header = re.sub(r"\s+", " ", header)  # a long prototype spans lines
    structs = structs_of(header)
    functions = _FUNCTION.findall(header)
    bytes_of = {struct: name for returns, name, struct in functions if returns == "int64_t"}
    lines = ["// Made from gfl.h by cmake/struct_fields.py.", "#pragma once", "", "namespace gfl {", "namespace {", ""]
    for struct in dict.fromkeys(struct for _, _, struct in functions):
        fields = fields_of(struct, structs)
        if any(field == "workspace" for field, _, _ in fields) and struct not in bytes_of:
            raise SystemExit(f"struct_fields: {struct} has a workspace, and no {struct}_workspace_bytes says how large")
        rows = [f'    {{"{field}", {kind}, offsetof({struct}, {path})}},' for field, kind, path in fields]
        lines += [f"const Field fields_of_{struct}[] = {{", *rows, "    {nullptr, kInt32, 0}};", ""]
    lines.append("const Function kFunctions[] = {")
    for returns, name, struct in functions:
        if returns == "int":
            workspace = wrapped(bytes_of[struct], struct) if struct in bytes_of else "nullptr"
            lines.append(
                f'    {{"{name}", sizeof({struct}), fields_of_{struct}, {wrapped(name, struct)}, {workspace}}},'
            )
    return "\n".join([*lines, "};", "", "}  // namespace", "}  // namespace gfl", ""])


def wrapped(function: str, struct: str) -> str:
    """One that takes the struct as void*."""
    call = f"gfl_{function}(device, static_cast<const {struct}*>(op))"
    return f"[](const gfl_device* device, const void* op) {{ return {call}; }}"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    text = table(source.read_text())
    if not target.exists() or target.read_text() != text:
        target.write_text(text)
