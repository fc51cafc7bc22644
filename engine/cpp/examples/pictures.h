/* Reading and writing picture files, for the examples. */
#ifndef EXAMPLE_PICTURES_H
#define EXAMPLE_PICTURES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a JPEG or PNG as RGB; NULL where it cannot. Free with free(). */
uint8_t *read_picture(const char *path, int *width, int *height);

/* Writes a mask of one byte a pixel as a PNG; 0 where it cannot. */
int write_mask(const char *path, const uint8_t *mask, int width, int height);

#ifdef __cplusplus
}
#endif

#endif
