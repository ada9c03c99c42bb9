#define _DEFAULT_SOURCE
#include "tt_cipher.h"
#include <limits.h>
#include <string.h>

// BoringSSL's cipher interface (its cipher.h), as far as it is called here.
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct engine_st ENGINE;
EVP_CIPHER_CTX *CCryptoBoringSSL_EVP_CIPHER_CTX_new(void);
void CCryptoBoringSSL_EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context);
const EVP_CIPHER *CCryptoBoringSSL_EVP_aes_256_gcm(void);
int CCryptoBoringSSL_EVP_CipherInit_ex(
    EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, ENGINE *engine, const uint8_t *key, const uint8_t *nonce, int is_sealing);
int CCryptoBoringSSL_EVP_EncryptUpdate(EVP_CIPHER_CTX *context, uint8_t *output, int *moved, const uint8_t *input, int count);
int CCryptoBoringSSL_EVP_DecryptUpdate(EVP_CIPHER_CTX *context, uint8_t *output, int *moved, const uint8_t *input, int count);
int CCryptoBoringSSL_EVP_EncryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *output, int *moved);
int CCryptoBoringSSL_EVP_DecryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *output, int *moved);
int CCryptoBoringSSL_EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int command, int argument, void *pointer);
enum { GET_TAG = 0x10, SET_TAG = 0x11 };

void *tt_cipher_new(void) { return CCryptoBoringSSL_EVP_CIPHER_CTX_new(); }
void tt_cipher_free(void *context) { CCryptoBoringSSL_EVP_CIPHER_CTX_free(context); }

int tt_cipher_set_key(void *context, const uint8_t *key, int is_sealing) {
    return CCryptoBoringSSL_EVP_CipherInit_ex(context, CCryptoBoringSSL_EVP_aes_256_gcm(), NULL, key, NULL, is_sealing);
}

int tt_cipher_begin(void *context, const uint8_t *nonce, int is_sealing) {
    return CCryptoBoringSSL_EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, is_sealing);
}

static int update(void *context, const void *input, void *output, size_t count, int is_sealing) {
    int moved = 0;
    if (count > INT_MAX) return 0;
    return is_sealing ? CCryptoBoringSSL_EVP_EncryptUpdate(context, output, &moved, input, (int)count)
                      : CCryptoBoringSSL_EVP_DecryptUpdate(context, output, &moved, input, (int)count);
}

int tt_cipher_authenticate(void *context, const void *bytes, size_t count, int is_sealing) {
    return update(context, bytes, NULL, count, is_sealing);
}

int tt_cipher_update(void *context, const void *input, void *output, size_t count, int is_sealing) {
    return count == 0 || update(context, input, output, count, is_sealing);
}

int tt_cipher_finish_sealing(void *context, uint8_t *tag) {
    uint8_t none[16];
    int moved = 0;
    return CCryptoBoringSSL_EVP_EncryptFinal_ex(context, none, &moved) &&
           CCryptoBoringSSL_EVP_CIPHER_CTX_ctrl(context, GET_TAG, TT_CIPHER_TAG_BYTES, tag);
}

int tt_cipher_finish_opening(void *context, const uint8_t *tag) {
    uint8_t none[16];
    int moved = 0;
    return CCryptoBoringSSL_EVP_CIPHER_CTX_ctrl(context, SET_TAG, TT_CIPHER_TAG_BYTES, (void *)tag) &&
           CCryptoBoringSSL_EVP_DecryptFinal_ex(context, none, &moved);
}

uint8_t *CCryptoBoringSSL_SHA256(const uint8_t *bytes, size_t count, uint8_t *digest);
enum { SHA256_BYTES = 32 };

void tt_salted_digest(const uint8_t *salt, const void *bytes, size_t count, uint8_t *digest) {
    uint8_t salted[TT_CIPHER_SALT_BYTES + SHA256_BYTES], full[SHA256_BYTES];
    memcpy(salted, salt, TT_CIPHER_SALT_BYTES);
    CCryptoBoringSSL_SHA256(bytes, count, salted + TT_CIPHER_SALT_BYTES);
    CCryptoBoringSSL_SHA256(salted, sizeof salted, full);
    memcpy(digest, full, TT_CIPHER_DIGEST_BYTES);
}

void tt_cipher_forget(void *bytes, size_t count) { explicit_bzero(bytes, count); }
