#include "tensor/pack.h"

#include "base/checked.h"
#include "base/error.h"
#include "tensor/kernels_table.h"
#include "tensor/panel.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Slots of one tensor's matrices. */
typedef struct entry {
    struct entry *next;
    size_t n;
    sl_packed slots[]; /* [n]; place holds the offset until the region is reserved */
} entry;

struct sl_packer {
    pthread_mutex_t making; /* held while a copy is made */
    entry *entries;
    uint64_t bytes;
    uint8_t *region; /* NULL: not reserved */
};

enum { ALIGNMENT = 64 };

uint64_t sl_packed_bytes(sl_type type, int64_t rows, int64_t columns) {
    uint64_t panels = ((uint64_t)rows + SL_PANEL_ROWS - 1) / SL_PANEL_ROWS, bytes;
    size_t panel = columns % sl_type_get(type)->block ? 0 : sl_panel_bytes(type, columns);
    return sl_mul_u64(panels, panel, &bytes) ? bytes : 0;
}

sllm_status sl_packer_new(sl_packer **packer, sllm_error *error) {
    *packer = calloc(1, sizeof **packer);
    if (!*packer) return sl_fail_memory(error, "the packer of weights", sizeof **packer);
    pthread_mutex_init(&(*packer)->making, NULL);
    return SLLM_OK;
}

void sl_packer_free(sl_packer *packer) {
    if (!packer) return;
    if (packer->region) munmap(packer->region, (size_t)packer->bytes);
    for (entry *e = packer->entries, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&packer->making);
    free(packer);
}

sllm_status sl_packer_add(sl_packer *packer, sl_tensor *tensor, bool mapped, sllm_error *error) {
    if (tensor->n_dims < 2) return SLLM_OK;
    int64_t rows = tensor->shape[tensor->n_dims - 2], columns = tensor->shape[tensor->n_dims - 1];
    uint64_t bytes = rows < 1 ? 0 : sl_packed_bytes(tensor->type, rows, columns);
    size_t n = tensor->n_dims == 3 ? (size_t)tensor->shape[0] : 1, slots;
    if (!bytes || !n || tensor->packed) return SLLM_OK;
    entry *e = sl_mul_size(n, sizeof(sl_packed), &slots) && sl_add_size(slots, sizeof *e, &slots) ? calloc(1, slots)
                                                                                                : NULL;
    if (!e) return sl_fail_memory(error, "the list of packed weights", n * sizeof(sl_packed));
    *e = (entry){.next = packer->entries, .n = n};
    packer->entries = e;
    for (size_t i = 0; i < n; i++) {
        e->slots[i].packer = packer;
        e->slots[i].mapped = mapped;
        e->slots[i].place = (uint8_t *)(uintptr_t)packer->bytes; /* an offset, until sl_packer_reserve */
        if (!sl_add_u64(packer->bytes, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, &packer->bytes))
            return sl_fail_memory(error, "packed weights", SIZE_MAX);
    }
    tensor->packed = e->slots;
    return SLLM_OK;
}

sllm_status sl_packer_reserve(sl_packer *packer, sllm_error *error) {
    if (!packer->bytes || packer->region) return SLLM_OK;
    void *region = packer->bytes > SIZE_MAX ? MAP_FAILED
                                            : mmap(NULL, (size_t)packer->bytes, PROT_READ | PROT_WRITE,
                                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) return sl_fail_memory(error, "packed weights", (size_t)packer->bytes);
#ifdef MADV_HUGEPAGE
    madvise(region, (size_t)packer->bytes, MADV_HUGEPAGE); /* fewer faults, fewer misses; a refusal changes nothing */
#endif
    packer->region = region;
    for (entry *e = packer->entries; e; e = e->next)
        for (size_t i = 0; i < e->n; i++) e->slots[i].place = packer->region + (uintptr_t)e->slots[i].place;
    return SLLM_OK;
}

uint64_t sl_packer_bytes(const sl_packer *packer) { return packer->bytes; }

/* ---------------------------------------------------------------- making a copy */

typedef struct making {
    const sl_kernels *kernels;
    sl_type type;
    const uint8_t *rows; /* of this matrix in the file */
    uint8_t *place;
    size_t row_bytes, panel_bytes, page;
    int64_t n_rows, columns, panels_a_task;
    bool mapped;
} making;

/* Whole pages within [from, to): what has been packed need not stay. */
static void give_back(const making *m, const uint8_t *from, const uint8_t *to) {
    uintptr_t first = ((uintptr_t)from + m->page - 1) / m->page * m->page, end = (uintptr_t)to / m->page * m->page;
    if (m->mapped && end > first) madvise((void *)first, end - first, MADV_DONTNEED);
}

static void pack_some(void *user, int64_t chunk, int thread) {
    const making *m = user;
    int64_t first = chunk * m->panels_a_task, end = first + m->panels_a_task;
    (void)thread;
    for (int64_t i = first; i < end && i * SL_PANEL_ROWS < m->n_rows; i++) {
        int64_t left = m->n_rows - i * SL_PANEL_ROWS;
        m->kernels->pack(m->type, m->rows + (size_t)(i * SL_PANEL_ROWS) * m->row_bytes, m->row_bytes,
                         left < SL_PANEL_ROWS ? (int)left : SL_PANEL_ROWS, m->columns,
                         m->place + (size_t)i * m->panel_bytes);
    }
    int64_t last = end * SL_PANEL_ROWS < m->n_rows ? end * SL_PANEL_ROWS : m->n_rows;
    give_back(m, m->rows + (size_t)(first * SL_PANEL_ROWS) * m->row_bytes, m->rows + (size_t)last * m->row_bytes);
}

static void make(sl_pool *pool, const sl_tensor *w, int64_t expert, const sl_packed *slot) {
    enum { TASK_BYTES = 1 << 20 };
    const sl_type_info *info = sl_type_get(w->type);
    making m = {.kernels = sl_kernels_get(), .type = w->type, .place = slot->place, .mapped = slot->mapped,
                .n_rows = w->shape[w->n_dims - 2], .columns = w->shape[w->n_dims - 1],
                .page = (size_t)sysconf(_SC_PAGESIZE)};
    m.row_bytes = (size_t)(m.columns / info->block) * info->bytes;
    m.panel_bytes = sl_panel_bytes(m.type, m.columns);
    m.rows = (const uint8_t *)w->data + (expert > 0 ? (size_t)expert * (size_t)m.n_rows * m.row_bytes : 0);
    m.panels_a_task = (int64_t)(TASK_BYTES / m.panel_bytes) + 1;
    int64_t panels = (m.n_rows + SL_PANEL_ROWS - 1) / SL_PANEL_ROWS;
    int64_t tasks = (panels + m.panels_a_task - 1) / m.panels_a_task;
    sl_pool_run(pool, tasks, pack_some, &m);
    give_back(&m, m.rows, m.rows + (size_t)m.n_rows * m.row_bytes); /* pages that two tasks shared */
}

const uint8_t *sl_packed_peek(const sl_tensor *w, int64_t expert) {
    if (!w->packed) return NULL;
    return atomic_load_explicit(&w->packed[expert > 0 ? expert : 0].panels, memory_order_acquire);
}

const uint8_t *sl_packed_get(sl_pool *pool, const sl_tensor *w, int64_t expert) {
    const uint8_t *panels = sl_packed_peek(w, expert);
    if (panels || !w->packed) return panels;
    sl_packed *slot = &w->packed[expert > 0 ? expert : 0];
    if (!slot->packer->region) return NULL;
    pthread_mutex_lock(&slot->packer->making);
    panels = atomic_load_explicit(&slot->panels, memory_order_acquire);
    if (!panels) {
        make(pool, w, expert, slot);
        panels = slot->place;
        atomic_store_explicit(&slot->panels, panels, memory_order_release);
    }
    pthread_mutex_unlock(&slot->packer->making);
    return panels;
}
