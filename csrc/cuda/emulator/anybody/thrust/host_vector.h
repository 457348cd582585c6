#include "../unsupported.h"
