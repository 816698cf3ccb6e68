// What Python hands over, made into the C ABI's structures: addresses come as integers inside tuples.
//
//   device  (kind, index, stream)
//   matrix  (address, dtype, row stride, column stride) or None
//   bins    (address, dtype, batch stride, channel stride, length stride) or None
//   flat    (address, stride) or None
//   maps    (dtype, ((address, batch stride, channel stride, position stride), ...)) or None, one for each level
//   sum     (kind, scale, avg_factor address)
//   vector  address, 0 where absent
#pragma once

#include <pybind11/pybind11.h>

#include "gfl.h"

namespace py = pybind11;

namespace {

int64_t integer(py::handle tuple, Py_ssize_t i) {
  const int64_t value = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), i));
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

void* address(py::handle tuple, Py_ssize_t i) { return reinterpret_cast<void*>(integer(tuple, i)); }

double real(py::handle tuple, Py_ssize_t i) {
  const double value = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple.ptr(), i));
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

bool tuple_of(py::handle source, Py_ssize_t size) {
  return PyTuple_Check(source.ptr()) && PyTuple_GET_SIZE(source.ptr()) == size;
}

}  // namespace

namespace pybind11 {
namespace detail {

template <>
struct type_caster<gfl_device> {
  PYBIND11_TYPE_CASTER(gfl_device, const_name("tuple[int, int, int]"));
  bool load(handle source, bool) {
    if (!tuple_of(source, 3)) return false;
    value = {static_cast<int32_t>(integer(source, 0)), static_cast<int32_t>(integer(source, 1)), address(source, 2)};
    return true;
  }
};

template <>
struct type_caster<gfl_matrix> {
  PYBIND11_TYPE_CASTER(gfl_matrix, const_name("tuple[int, int, int, int] | None"));
  bool load(handle source, bool) {
    value = {};
    if (source.is_none()) return true;
    if (!tuple_of(source, 4)) return false;
    value = {address(source, 0), static_cast<int32_t>(integer(source, 1)), integer(source, 2), integer(source, 3)};
    return true;
  }
};

template <>
struct type_caster<gfl_bins> {
  PYBIND11_TYPE_CASTER(gfl_bins, const_name("tuple[int, int, int, int, int] | None"));
  bool load(handle source, bool) {
    value = {};
    if (source.is_none()) return true;
    if (!tuple_of(source, 5)) return false;
    value = {address(source, 0), static_cast<int32_t>(integer(source, 1)), integer(source, 2), integer(source, 3),
             integer(source, 4)};
    return true;
  }
};

template <>
struct type_caster<gfl_flat> {
  PYBIND11_TYPE_CASTER(gfl_flat, const_name("tuple[int, int] | None"));
  bool load(handle source, bool) {
    value = {};
    if (source.is_none()) return true;
    if (!tuple_of(source, 2)) return false;
    value = {address(source, 0), integer(source, 1)};
    return true;
  }
};

template <>
struct type_caster<gfl_reduction> {
  PYBIND11_TYPE_CASTER(gfl_reduction, const_name("tuple[int, float, int]"));
  bool load(handle source, bool) {
    if (!tuple_of(source, 3)) return false;
    value = {static_cast<int32_t>(integer(source, 0)), real(source, 1), address(source, 2)};
    return true;
  }
};

template <>
struct type_caster<gfl_iou_options> {
  PYBIND11_TYPE_CASTER(gfl_iou_options, const_name("tuple[int, int, int, float]"));
  bool load(handle source, bool) {
    if (!tuple_of(source, 4)) return false;
    value = {static_cast<int32_t>(integer(source, 0)), static_cast<int32_t>(integer(source, 1)),
             static_cast<int32_t>(integer(source, 2)), real(source, 3)};
    return true;
  }
};

// ((height, width, stride), ...)
template <>
struct type_caster<gfl_levels> {
  PYBIND11_TYPE_CASTER(gfl_levels, const_name("tuple[tuple[int, int, float], ...]"));
  bool load(handle source, bool) {
    if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) > GFL_MAX_LEVELS) return false;
    value.count = static_cast<int32_t>(PyTuple_GET_SIZE(source.ptr()));
    for (int i = 0; i < value.count; ++i) {
      const handle level = PyTuple_GET_ITEM(source.ptr(), i);
      if (!tuple_of(level, 3)) return false;
      value.level[i] = {static_cast<int32_t>(integer(level, 0)), static_cast<int32_t>(integer(level, 1)),
                        real(level, 2)};
    }
    return true;
  }
};

// A level of a head: (scores, edges, height, width, stride)
template <>
struct type_caster<gfl_head_level> {
  PYBIND11_TYPE_CASTER(gfl_head_level, const_name("tuple[bins, bins, int, int, float]"));
  bool load(handle source, bool convert) {
    if (!tuple_of(source, 5)) return false;
    type_caster<gfl_bins> scores, edges;
    if (!scores.load(PyTuple_GET_ITEM(source.ptr(), 0), convert)) return false;
    if (!edges.load(PyTuple_GET_ITEM(source.ptr(), 1), convert)) return false;
    value = {static_cast<gfl_bins&>(scores), static_cast<gfl_bins&>(edges), static_cast<int32_t>(integer(source, 2)),
             static_cast<int32_t>(integer(source, 3)), real(source, 4)};
    return true;
  }
};

// (dtype, ((address, batch stride, channel stride, position stride), ...)) or None
template <>
struct type_caster<gfl_maps> {
  PYBIND11_TYPE_CASTER(gfl_maps, const_name("tuple[int, tuple[tuple[int, int, int, int], ...]] | None"));
  bool load(handle source, bool) {
    value = {};
    if (source.is_none()) return true;
    if (!tuple_of(source, 2)) return false;
    const handle levels = PyTuple_GET_ITEM(source.ptr(), 1);
    if (!PyTuple_Check(levels.ptr()) || PyTuple_GET_SIZE(levels.ptr()) > GFL_MAX_LEVELS) return false;
    value.dtype = static_cast<int32_t>(integer(source, 0));
    value.count = static_cast<int32_t>(PyTuple_GET_SIZE(levels.ptr()));
    for (int i = 0; i < value.count; ++i) {
      const handle map = PyTuple_GET_ITEM(levels.ptr(), i);
      if (!tuple_of(map, 4)) return false;
      value.level[i] = {address(map, 0), integer(map, 1), integer(map, 2), integer(map, 3)};
    }
    return true;
  }
};

}  // namespace detail
}  // namespace pybind11
