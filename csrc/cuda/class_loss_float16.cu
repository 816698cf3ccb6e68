#include "class_loss_launch.cuh"

namespace gfl {
namespace cuda {

template int class_loss_of<float16>(Stream& stream, const gfl_class_loss& op, bool backward);

}  // namespace cuda
}  // namespace gfl
