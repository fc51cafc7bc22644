#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include "pictures.h"

#include <stb_image.h>
#include <stb_image_write.h>

uint8_t *read_picture(const char *path, int *width, int *height) {
    int channels;
    return stbi_load(path, width, height, &channels, 3);
}

int write_mask(const char *path, const uint8_t *mask, int width, int height) {
    return stbi_write_png(path, width, height, 1, mask, width);
}
