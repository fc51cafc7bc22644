/* Segments what an expression names, in plain C: segment_c BUNDLE IMAGE EXPRESSION MASK.png */
#include <risengine/risengine.h>
#include <stdio.h>
#include <stdlib.h>

#include "pictures.h"

static int failed(ris_status status) {
    if (status != RIS_OK) fprintf(stderr, "%s\n", ris_last_error());
    return status != RIS_OK;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s BUNDLE IMAGE EXPRESSION MASK.png\n", argv[0]);
        return 2;
    }
    int width = 0, height = 0, result = 1;
    uint8_t *rgb = read_picture(argv[2], &width, &height);
    uint8_t *mask = NULL;
    ris_engine *engine = NULL;
    ris_image *image = NULL;
    ris_answer answer;
    ris_image_view view;
    if (rgb == NULL) {
        fprintf(stderr, "%s cannot be read\n", argv[2]);
        return 1;
    }
    if (failed(ris_engine_open(argv[1], NULL, &engine)) || failed(ris_image_view_init(&view))) goto end;
    view.data = rgb;
    view.width_px = width;
    view.height_px = height;
    view.stride_bytes = 3 * (int64_t)width;
    if (failed(ris_encode_image(engine, &view, &image))) goto end;

    size_t size = (size_t)width * (size_t)height;
    mask = malloc(size);
    if (mask == NULL || failed(ris_segment(engine, image, argv[3], NULL, &answer, mask, size, NULL))) goto end;
    printf("score %.3f, box %.0f %.0f %.0f %.0f\n", answer.score, answer.box_xyxy[0], answer.box_xyxy[1],
           answer.box_xyxy[2], answer.box_xyxy[3]);
    result = write_mask(argv[4], mask, width, height) ? 0 : 1;
end:
    free(mask);
    ris_image_free(image);
    ris_engine_close(engine);
    free(rgb);
    return result;
}
