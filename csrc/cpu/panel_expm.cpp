// Compiles the panel exponentials once for the kernels that share them.
#include "panel_base.h"
#include "panel_psi.h"

namespace lierope::cpu::LIEROPE_ISA {

template class Panel<RowLayout<float>>;
template class Panel<RowLayout<double>>;
#if LIEROPE_VECTOR_BYTES == 64
template class Panel<LaneLayout<float>>;
#endif

}  // namespace lierope::cpu::LIEROPE_ISA
