/* Encoders of the BERT family on the CPU, for embellama's Python side. Plain C; no exception leaves.
 *
 * Every function may be called from any thread. A context is used by one thread at a time; a model
 * may be shared, and is freed after its contexts.
 */
#ifndef EMBELLAMA_NATIVE_H
#define EMBELLAMA_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EM_API __declspec(dllexport)
#else
#define EM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by one with every change to what follows. */
#define EM_VERSION 5

enum em_status { EM_OK = 0, EM_INVALID = 1, EM_NO_MEMORY = 2 };

/* A weight as it lies in a GGUF file. */
typedef struct {
    const void* data;  /* NULL: the model has none */
    int32_t type;      /* enum ggml_type: 0 F32, 1 F16, 8 Q8_0, 30 BF16 */
    int64_t n_rows;
    int64_t n_columns; /* contiguous */
} em_tensor;

/* How a token knows its place: by a row of EM_POSITIONS, by queries and keys rotated in pairs of
 * components n_rotated / 2 apart, or by scores that fall with the distance. */
enum em_position_encoding { EM_ABSOLUTE = 0, EM_ROTARY = 1, EM_ALIBI = 2 };

/* Between EM_UP and EM_DOWN: gelu(up), silu(gate) * up, or gelu(gate) * up; gelu with erf. */
enum em_activation { EM_GELU = 0, EM_SWIGLU = 1, EM_GEGLU = 2 };

typedef struct {
    int64_t n_layers, n_embd, n_ff, n_heads, n_token_types, n_vocab;
    int64_t n_positions; /* the most tokens of a sequence; rows of EM_POSITIONS */
    int64_t n_rotated;   /* of a head's components, the first; EM_ROTARY alone, even */
    int32_t position_encoding, activation;
    float norm_eps;
    float rotary_base; /* EM_ROTARY alone */
    float alibi_bias;  /* the steepest slope is 2^(-alibi_bias / heads); EM_ALIBI alone */
} em_shape;

/* Tensors come in this order: those of the model, then those of each layer. Every weight is
 * followed by its bias. A norm's two are one row each. Which there have to be follows from the
 * shape; the norms of queries, of keys, and the second one after attention, are there in all
 * layers or in none. */
enum {
    EM_TOKENS, EM_POSITIONS, EM_TOKEN_TYPES, EM_NORM, EM_NORM_BIAS, EM_N_MODEL_TENSORS
};
enum {
    EM_Q, EM_Q_BIAS, EM_K, EM_K_BIAS, EM_V, EM_V_BIAS, EM_OUT, EM_OUT_BIAS, EM_ATTENTION_NORM,
    EM_ATTENTION_NORM_BIAS, EM_UP, EM_UP_BIAS, EM_DOWN, EM_DOWN_BIAS, EM_OUTPUT_NORM,
    EM_OUTPUT_NORM_BIAS, EM_GATE, EM_GATE_BIAS, EM_Q_NORM, EM_Q_NORM_BIAS, EM_K_NORM,
    EM_K_NORM_BIAS, EM_ATTENTION_NORM_2, EM_ATTENTION_NORM_2_BIAS, EM_N_LAYER_TENSORS
};

typedef struct em_model em_model;
typedef struct em_context em_context;

EM_API int32_t em_version(void);

/* Kernels that this CPU can run, the fastest first. */
EM_API int32_t em_n_kernels(void);
EM_API const char* em_kernel_isa(int32_t kernel);          /* such as "avx512_bf16" */
EM_API const char* em_kernel_compute_type(int32_t kernel); /* "f32", "bf16" or "int8" */
EM_API int32_t em_kernel_lanes(int32_t kernel);            /* widths have to be multiples */
EM_API int32_t em_kernel_value_bytes(int32_t kernel);      /* of a query's, key's, value's number */

/* Packs the weights. The data of EM_TOKENS is read as long as the model lives, all other data only
 * here. Returns NULL and a message, cut at n_message bytes, if the tensors do not fit together. */
EM_API em_model* em_model_new(const em_shape* shape, int32_t kernel, const em_tensor* tensors,
                              int64_t n_tensors, char* message, size_t n_message);
EM_API void em_model_free(em_model* model);
EM_API int64_t em_model_bytes(const em_model* model); /* of what was packed */

/* Room for micro-batches of up to n_tokens tokens, on n_threads threads; more make room for
 * themselves when they come. Returns NULL and a message if there is none. */
EM_API em_context* em_context_new(const em_model* model, int64_t n_tokens, int32_t n_threads,
                                  char* message, size_t n_message);
EM_API void em_context_free(em_context* context);
EM_API int64_t em_context_bytes(const em_context* context);

/* Computes sequences laid end to end.
 *
 * ids, types: offsets[n_sequences] values; types may be NULL (all 0).
 * offsets: n_sequences + 1 values from 0 on; no sequence is empty.
 * pooling: 0 none, 1 mean, 2 first, 3 last token.
 * n_threads: this one and others that the model keeps; at most 1024. The rows are the same to the
 * last bit, however many.
 * out: n_sequences rows of n_embd floats, or one for each token where nothing is pooled.
 * Returns an em_status, and a message unless it is EM_OK. Nothing is written to out then. */
EM_API int32_t em_encode(em_context* context, const int32_t* ids, const int32_t* types,
                         const int32_t* offsets, int64_t n_sequences, int32_t pooling,
                         int32_t n_threads, float* out, char* message, size_t n_message);

#ifdef __cplusplus
}
#endif
#endif
