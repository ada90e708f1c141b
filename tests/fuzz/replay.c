/* Runs a fuzz target over files and folders named on the command line: the committed corpus as ordinary tests. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path) {
    DIR *directory = opendir(path);
    if (directory) {
        int n = 0;
        for (struct dirent *entry; (entry = readdir(directory));) {
            char inner[4096];
            if (entry->d_name[0] == '.') continue;
            snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            n += replay(inner);
        }
        closedir(directory);
        return n;
    }
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1); /* exact size, so that a sanitizer sees reads past the end */
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size) { perror(path); exit(1); }
    fclose(file);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return 1;
}

int main(int argc, char **argv) {
    int n = 0;
    for (int i = 1; i < argc; i++) n += replay(argv[i]);
    printf("%d inputs replayed\n", n);
    return n == 0;
}
