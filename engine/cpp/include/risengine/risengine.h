/* risengine: zero-shot referring segmentation from a bundle. Image + expression -> mask. The C interface.
 *
 * Ownership. ris_engine, ris_image and ris_masks are opaque. What a call returns through an `out` pointer belongs to the
 * caller, who frees it with the function named beside it; freeing NULL does nothing. An out pointer is set to NULL where
 * the call fails. ris_image_masks lends: its result lives as long as the image. Images and masks hold all they need
 * and may outlive the engine. Nothing that the caller passes is kept after the call returns.
 *
 * Errors. Every call that can fail returns a ris_status; RIS_OK is 0. ris_last_error() then says what was expected, what
 * was found and what to do. The message belongs to the calling thread and lives until that thread's next failing call.
 *
 * Buffers. They are the caller's. `needed` (may be NULL) receives the size that the whole result has, in elements of the
 * buffer; where `capacity` is less, nothing is written and the status is RIS_ERROR_BUFFER_TOO_SMALL. A buffer of NULL with
 * a capacity of 0 asks for the size alone.
 *
 * Threads. An engine, an image and masks may be used by any number of threads at once; nothing is changed by use. Only
 * ris_engine_close, ris_image_free and ris_masks_free must come after every other use of their argument. Any number of
 * engines may live in one process.
 *
 * Strings are UTF-8 and end with a zero byte. Arrays are C-contiguous.
 */
#ifndef RISENGINE_RISENGINE_H
#define RISENGINE_RISENGINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define RIS_API
#else
#define RIS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ris_engine ris_engine; /* a loaded bundle */
typedef struct ris_image ris_image;   /* an image's masks and their features: all that an expression does not change */
typedef struct ris_masks ris_masks;   /* masks of one image */

typedef enum ris_status {
    RIS_OK = 0,
    RIS_ERROR_INPUT = 1,            /* an image, mask, text, handle or setting cannot be used */
    RIS_ERROR_BUNDLE = 2,           /* the bundle is missing, damaged, of another format, or for another device */
    RIS_ERROR_BACKEND = 3,          /* ONNX Runtime or a provider is missing or failed */
    RIS_ERROR_BUFFER_TOO_SMALL = 4, /* `needed` says how large it has to be */
    RIS_ERROR_OUT_OF_MEMORY = 5,
    RIS_ERROR_INTERNAL = 6 /* a fault of this library */
} ris_status;

/* Where graphs run; of several GPUs, the one that CUDA_VISIBLE_DEVICES puts first. */
typedef enum ris_device {
    RIS_DEVICE_BUNDLE = 0, /* what the bundle was built for */
    RIS_DEVICE_CPU = 1,
    RIS_DEVICE_CUDA = 2,        /* ONNX Runtime's CUDA provider */
    RIS_DEVICE_TENSORRT = 3,    /* its TensorRT provider, for bundles built for tensorrt: nothing is compiled when run */
    RIS_DEVICE_TENSORRT_RTX = 4 /* its TensorRT-RTX provider, for bundles built for tensorrt-rtx */
} ris_device;

typedef enum ris_pixels { RIS_RGB = 0, RIS_BGR = 1 } ris_pixels;

/* Fill it with ris_engine_options_init before setting fields: that sets struct_size and the bundle's own values. */
typedef struct ris_engine_options {
    size_t struct_size;
    int32_t device;               /* ris_device */
    int32_t threads;              /* of one inference call on a CPU; 0: ONNX Runtime chooses */
    double global_weight;          /* v in [0, 1], the whole image's share of a mask's feature; NaN: the bundle's */
    double sentence_weight;        /* r in [0, 1], the sentence's share of the text feature; NaN: the bundle's */
    int32_t points_per_side;      /* of SAM's grid of prompts; 0: the bundle's */
    double pred_iou_thresh;        /* as in SamAutomaticMaskGenerator; NaN: the bundle's */
    double stability_score_thresh; /* likewise */
} ris_engine_options;

/* Pixels of 3 bytes, rows from top to bottom. Fill it with ris_image_view_init before setting fields. */
typedef struct ris_image_view {
    size_t struct_size;
    const uint8_t *data;
    int64_t width_px;     /* at most 16384 */
    int64_t height_px;    /* at most 16384; at most 34 million pixels in all */
    int64_t stride_bytes; /* from one row to the next; at least 3 * width_px */
    int32_t pixels;       /* ris_pixels */
} ris_image_view;

/* An answer. Its layout never changes. */
typedef struct ris_answer {
    size_t index;      /* of the mask among the image's */
    float score;       /* similarity of mask and expression: a cosine, or a dot product for ResNet bundles */
    float box_xyxy[4]; /* tight around the mask, half-open, in pixels */
} ris_answer;

/* Of this library, such as "0.1.0". */
RIS_API const char *ris_version(void);

/* What went wrong in this thread's last failing call; "" before the first. */
RIS_API const char *ris_last_error(void);

RIS_API ris_status ris_engine_options_init(ris_engine_options *options);
RIS_API ris_status ris_image_view_init(ris_image_view *view);

/* Opens a bundle: reads its manifest, checks the SHA-256 of every file and loads the graphs. `options` may be NULL. Free
 * with ris_engine_close. */
RIS_API ris_status ris_engine_open(const char *bundle, const ris_engine_options *options, ris_engine **out);
RIS_API void ris_engine_close(ris_engine *engine);

/* SHA-256 of the bundle's manifest in hex: 65 characters with the final zero. */
RIS_API ris_status ris_engine_bundle_id(const ris_engine *engine, char *buffer, size_t capacity, size_t *needed);

/* What really runs the graphs, ONNX Runtime's names joined by commas. */
RIS_API ris_status ris_engine_providers(const ris_engine *engine, char *buffer, size_t capacity, size_t *needed);

/* Proposes masks with the bundle's SAM and describes them. Zero masks where SAM finds nothing. Free with ris_image_free. */
RIS_API ris_status ris_encode_image(const ris_engine *engine, const ris_image_view *view, ris_image **out);

/* Describes the caller's masks in place of SAM's: (count, height, width) bytes, not 0 inside; none of them empty. */
RIS_API ris_status ris_encode_masks(const ris_engine *engine, const ris_image_view *view, const uint8_t *masks,
                                    size_t count, ris_image **out);
RIS_API void ris_image_free(ris_image *image);

/* The image's masks, lent by the image. NULL only where `image` is NULL. */
RIS_API const ris_masks *ris_image_masks(const ris_image *image);

/* The masks that the bundle's SAM proposes, without describing them. Free with ris_masks_free. */
RIS_API ris_status ris_propose(const ris_engine *engine, const ris_image_view *view, ris_masks **out);
RIS_API void ris_masks_free(ris_masks *masks);

/* Number and size of the masks; each of the three may be NULL. */
RIS_API ris_status ris_masks_shape(const ris_masks *masks, size_t *count, int64_t *height_px, int64_t *width_px);

/* One mask: height * width bytes, 255 inside and 0 outside. */
RIS_API ris_status ris_masks_get(const ris_masks *masks, size_t index, uint8_t *buffer, size_t capacity, size_t *needed);

/* One mask's box, as in ris_answer, and its predicted quality, 1 for masks of the caller; each may be NULL. */
RIS_API ris_status ris_masks_describe(const ris_masks *masks, size_t index, float box_xyxy[4], float *quality);

/* The mask that an expression refers to, by the global-local score of Yu, Seo, Son (CVPR 2023).
 *
 * text: English, at most 1000 characters and 77 CLIP tokens.
 * noun_phrase: what the expression is about, such as "the red mug" for "the red mug left of the box", from a parser of
 *     the caller's; NULL takes ris_noun_phrase's.
 * answer: may be NULL.
 * mask: as for ris_masks_get.
 *
 * An image without masks is RIS_ERROR_INPUT; so is one that was encoded by another bundle or another global_weight. */
RIS_API ris_status ris_segment(const ris_engine *engine, const ris_image *image, const char *text,
                               const char *noun_phrase, ris_answer *answer, uint8_t *mask, size_t capacity,
                               size_t *needed);

/* The answers closest to an expression, best first: at most `capacity`. `count` receives how many were written; 0 where
 * the image has no masks. */
RIS_API ris_status ris_rank(const ris_engine *engine, const ris_image *image, const char *text, const char *noun_phrase,
                            ris_answer *answers, size_t capacity, size_t *count);

/* The noun phrase that short rules find at the head of an expression, lower-cased. README says how often it is the one
 * that the Python runtime's parser finds. */
RIS_API ris_status ris_noun_phrase(const char *text, char *buffer, size_t capacity, size_t *needed);

/* CLIP's tokens of a text as it stands, start and end included. */
RIS_API ris_status ris_tokenize(const ris_engine *engine, const char *text, int64_t *buffer, size_t capacity,
                                size_t *needed);

#ifdef __cplusplus
}
#endif

#endif /* RISENGINE_RISENGINE_H */
