// What every kernel file begins with.
#pragma once

#include "../parallel.h"
#include "../simd/formulas.h"
#include "isa.h"
#include "table.h"
