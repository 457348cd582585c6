#include "../../unsupported.h"
