// AES-256-GCM piece by piece, in place or into another buffer, without allocating: swift-crypto's public interface takes
// and returns whole Data values, which makes it ten times slower on frames of a mebibyte (docs/decisions/0008).
//
// The cipher is the BoringSSL that swift-crypto builds; its symbols carry the prefix CCryptoBoringSSL_, and no header of
// them is a product, so tt_cipher.c declares the few it calls. Can go when swift-crypto seals spans in place.
#ifndef TT_CIPHER_H
#define TT_CIPHER_H

#include <stddef.h>
#include <stdint.h>

enum { TT_CIPHER_KEY_BYTES = 32, TT_CIPHER_NONCE_BYTES = 12, TT_CIPHER_TAG_BYTES = 16, TT_CIPHER_SALT_BYTES = 16, TT_CIPHER_DIGEST_BYTES = 16 };

// A context is used by one thread at a time. NULL without memory.
void *tt_cipher_new(void);
void tt_cipher_free(void *context);
// All of these return 1, or 0 when the library refuses, which is a bug of the caller's or a tag that does not match.
int tt_cipher_set_key(void *context, const uint8_t *key, int is_sealing);
// Begins a message. No two messages that are sealed under one key may have the same nonce.
int tt_cipher_begin(void *context, const uint8_t *nonce, int is_sealing);
// Bytes that are authenticated and not encrypted; before the first piece.
int tt_cipher_authenticate(void *context, const void *bytes, size_t count, int is_sealing);
// Encrypts or decrypts the next piece; input and output are the same memory or do not overlap.
int tt_cipher_update(void *context, const void *input, void *output, size_t count, int is_sealing);
// Ends a message that is being sealed.
int tt_cipher_finish_sealing(void *context, uint8_t *tag);
// Ends a message that is being opened: 0 if it is not what was sealed.
int tt_cipher_finish_opening(void *context, const uint8_t *tag);
// The first 16 bytes of SHA-256 over a salt and SHA-256 over the bytes.
void tt_salted_digest(const uint8_t *salt, const void *bytes, size_t count, uint8_t *digest);
// Overwrites what the compiler may not leave out.
void tt_cipher_forget(void *bytes, size_t count);

#endif
