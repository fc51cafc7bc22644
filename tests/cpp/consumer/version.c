#include <risengine/risengine.h>

int main(void) { return ris_version()[0] == 0; }
