// The dense classification loss of one type of logits; each is compiled in a file of its own.
#pragma once

#include "../math/half.h"
#include "launch.h"

namespace gfl {
namespace cuda {

template <class T>
int class_loss_of(Stream& stream, const gfl_class_loss& op, bool backward);

}  // namespace cuda
}  // namespace gfl
