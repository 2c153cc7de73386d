// The launchers of rotate_blocks and its backward, compiled.
#include "rotate_blocks.cuh"
