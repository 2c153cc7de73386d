// Exponentials with one double matrix a lane.
#define LIEROPE_LANE_TYPE double
#include "lane_exponential_body.h"
