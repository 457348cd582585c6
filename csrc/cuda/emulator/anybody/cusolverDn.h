#include "unsupported.h"
