/* A plugin of QEMU's user emulation that counts executed instructions: the first 8 bytes of a file, which the emulated
   program can map and read.

       cc -shared -fPIC -O2 -o count.so count.c
       qemu-aarch64 -plugin count.so,counter=COUNTER PROGRAM

   Declares what it needs of the plugins' interface, version 1, so that QEMU's header is not needed. One thread. */

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t plugin_id;
struct block;
enum operation { ADD_U64 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, enum operation, void *, uint64_t);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t *executed;

static void translated(plugin_id id, struct block *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, executed, qemu_plugin_tb_n_insns(block));
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int count, char **given) {
  (void)info;
  if (count != 1 || strncmp(given[0], "counter=", 8) != 0) {
    fprintf(stderr, "count.so: expected counter=COUNTER\n");
    return 1;
  }
  int file = open(given[0] + 8, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, sizeof *executed) != 0) {
    perror(given[0] + 8);
    return 1;
  }
  executed = mmap(NULL, sizeof *executed, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (executed == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
