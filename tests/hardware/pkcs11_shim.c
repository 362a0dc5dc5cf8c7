/* A PKCS#11 module in front of another, for what no real token does when a test wants it.

   $PKCS11_SHIM is a folder. A file there named after a function (`C_Sign`) holds the number
   that the function returns instead of being called; one named `C_Sign.once` does so for one
   call. Where the file `gone` is there, the token is: no slot has one, and everything else
   about it fails. `flags` holds flags that the token has besides its own, and where `wrong` is
   there, so is every signature. Every call of these
   functions adds a byte to a file such as `C_Sign.calls`. Every mechanism has a vendor's number,
   too: its own with the highest of 32 bits set. $PKCS11_SHIM_REAL is the module behind. Every argument of PKCS#11 is a
   word or smaller, and a call has eight at most. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);

enum { FUNCTIONS = 68, OK = 0, TOKEN_NOT_PRESENT = 0xe0, DEVICE_REMOVED = 0x32 };

static word real[FUNCTIONS + 1], table[FUNCTIONS + 1];

static FILE *find(const char *name, const char *suffix, char *path, size_t room,
                  const char *mode) {
    const char *folder = getenv("PKCS11_SHIM");
    snprintf(path, room, "%s/%s%s", folder ? folder : "/nonexistent", name, suffix);
    return fopen(path, mode);
}

static int number(const char *name, const char *suffix, int once, word *value) {
    char path[4096];
    FILE *file = find(name, suffix, path, sizeof path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%li", (long *)value) != 1)
        *value = DEVICE_REMOVED;
    fclose(file);
    if (once)
        unlink(path);
    return 1;
}

static int fails(const char *name, word *rv) {
    char path[4096];
    FILE *file = find(name, ".calls", path, sizeof path, "a");
    if (file) {
        fputc('.', file);
        fclose(file);
    }
    return number(name, ".once", 1, rv) || number(name, "", 0, rv) || number("gone", "", 0, rv);
}

#define VENDOR 0x80000000ul

struct mechanism {
    word number, parameter, length;
};

#define WRAP(index, name)                                                                  \
    static word name(word a, word b, word c, word d, word e, word f, word g, word h) {     \
        word rv;                                                                           \
        return fails(#name, &rv) ? rv : ((function)real[index + 1])(a, b, c, d, e, f, g, h); \
    }

WRAP(12, C_OpenSession)
WRAP(18, C_Login)
WRAP(13, C_CloseSession)
WRAP(24, C_GetAttributeValue)
WRAP(26, C_FindObjectsInit)
WRAP(27, C_FindObjects)
WRAP(28, C_FindObjectsFinal)
WRAP(29, C_EncryptInit)
WRAP(30, C_Encrypt)
WRAP(33, C_DecryptInit)
WRAP(34, C_Decrypt)
WRAP(58, C_GenerateKey)
WRAP(62, C_DeriveKey)

/* The same, for those whose second argument is a mechanism. */
#define WRAP_MECHANISM(index, name)                                                        \
    static word name(word a, word b, word c, word d, word e, word f, word g, word h) {     \
        word rv;                                                                           \
        struct mechanism mechanism = *(struct mechanism *)b;                               \
        mechanism.number &= ~VENDOR;                                                       \
        b = (word)&mechanism;                                                              \
        return fails(#name, &rv) ? rv : ((function)real[index + 1])(a, b, c, d, e, f, g, h); \
    }

WRAP_MECHANISM(42, C_SignInit)
WRAP_MECHANISM(59, C_GenerateKeyPair)

static word C_Sign(word session, word data, word length, word signature, word room) {
    word rv, wrong;
    if (fails("C_Sign", &rv))
        return rv;
    rv = ((function)real[44])(session, data, length, signature, room, 0, 0, 0);
    if (!rv && signature && number("wrong", "", 0, &wrong))
        *(char *)signature ^= 1;
    return rv;
}

static word C_GetMechanismList(word slot, word *list, word *count) {
    word rv, room = *count;
    rv = ((function)real[8])(slot, (word)list, (word)count, 0, 0, 0, 0, 0);
    if (!rv && list && room >= 2 * *count)
        for (word i = 0; i < *count; i++)
            list[*count + i] = list[i] | VENDOR;
    *count *= 2;
    return rv;
}

static word C_GetSlotList(word present, word list, word count) {
    word rv;
    if (fails("C_GetSlotList", &rv)) {
        *(word *)count = 0;
        return OK;
    }
    return ((function)real[5])(present, list, count, 0, 0, 0, 0, 0);
}

static word C_GetTokenInfo(word slot, word info) {
    word rv, flags = 0;
    if (fails("C_GetTokenInfo", &rv))
        return TOKEN_NOT_PRESENT;
    rv = ((function)real[7])(slot, info, 0, 0, 0, 0, 0, 0);
    number("flags", "", 0, &flags);
    *(word *)(info + 96) |= flags;
    return rv;
}

word C_GetFunctionList(word **list) {
    if (!real[1]) {
        void *module = dlopen(getenv("PKCS11_SHIM_REAL"), RTLD_NOW | RTLD_LOCAL);
        word (*get)(word **) = module ? (word(*)(word **))dlsym(module, "C_GetFunctionList") : 0;
        word *theirs;
        if (!get || get(&theirs))
            return 5; /* CKR_GENERAL_ERROR */
        for (int i = 0; i <= FUNCTIONS; i++)
            table[i] = real[i] = theirs[i];
        table[4 + 1] = (word)C_GetSlotList;
        table[6 + 1] = (word)C_GetTokenInfo;
        table[7 + 1] = (word)C_GetMechanismList;
        table[18 + 1] = (word)C_Login;
        table[12 + 1] = (word)C_OpenSession;
        table[13 + 1] = (word)C_CloseSession;
        table[24 + 1] = (word)C_GetAttributeValue;
        table[26 + 1] = (word)C_FindObjectsInit;
        table[27 + 1] = (word)C_FindObjects;
        table[28 + 1] = (word)C_FindObjectsFinal;
        table[29 + 1] = (word)C_EncryptInit;
        table[30 + 1] = (word)C_Encrypt;
        table[33 + 1] = (word)C_DecryptInit;
        table[34 + 1] = (word)C_Decrypt;
        table[42 + 1] = (word)C_SignInit;
        table[43 + 1] = (word)C_Sign;
        table[58 + 1] = (word)C_GenerateKey;
        table[59 + 1] = (word)C_GenerateKeyPair;
        table[62 + 1] = (word)C_DeriveKey;
    }
    *list = table;
    return OK;
}
