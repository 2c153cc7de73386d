// The launchers of rotate_pairs and its backward, compiled.
#include "rotate_pairs.cuh"
