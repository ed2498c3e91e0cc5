#include "transport/lane.h"
