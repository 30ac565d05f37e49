/* Queries over inverted lists of 4-bit codes in one call: rotation, lists, codes, and scores of the stored rows.

   What it reads is small, so that it stays in a core's own cache: the rotation and the widest dimensions of the
   centroids as one byte a value, and a table of one byte for each code and centroid. What these find is scored by the
   stored rows, to the last bit as `inner_products` in storage/exact_search.py does it: no product and sum may be made
   one operation (-ffp-contract=off). Codes lie in blocks of 32 as FAISS's FastScan keeps
   them: for each pair of codes 16 bytes and 16 bytes, in each byte the code of one row and of the row 16 further.

   Two versions of all that is done many times, for AVX-512 and for AVX2 (list_scan_lanes.h, read twice). Where the
   processor has neither, or no compiler was there, FAISS and NumPy do the same (storage/ann.py). */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "list_scan_edges.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && defined(__linux__)
#include <immintrin.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "list_scan_parts.h"

#define LANES(name) name##_512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define WIDE 1
#include "list_scan_lanes.h"
#undef LANES
#undef TARGET
#undef WIDE
#define LANES(name) name##_256
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define WIDE 0
#include "list_scan_lanes.h"

static int processor(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return wide ? 512 : 256;
}

static void free_scan(PyObject *capsule) {
    Scan *scan = PyCapsule_GetPointer(capsule, "list_scan");
    if (!scan) return;
    for (Scratch *one = scan->free; one;) {
        Scratch *next = one->next;
        free(one->memory);
        free(one);
        one = next;
    }
    for (int i = 0; i < scan->count; i++) PyBuffer_Release(&scan->held[i]);
    free(scan);
}

/* Hold a buffer of exactly so many bytes; NULL and an exception where it is of another size. */
static const void *hold(Scan *scan, PyObject *object, int64_t bytes) {
    if (object == Py_None) return NULL;
    Py_buffer *view = &scan->held[scan->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    scan->count++;
    if (bytes >= 0 && view->len != (Py_ssize_t)bytes) {
        PyErr_Format(PyExc_ValueError, "array %d has %zd bytes and not %lld", scan->count, view->len, (long long)bytes);
        return NULL;
    }
    return view->buf;
}

/* Whether blocks of so many 4-bit codes a row are whole lanes. */
static int can_be_summed(int64_t codes, int64_t dim) { return codes >= 4 && codes % 4 == 0 && dim % codes == 0; }

/* Hold the stored rows: the values of the file, where each batch of rows starts in them, and the same of the scales. */
static void hold_rows(Scan *scan, PyObject *const *given) {
    int64_t starts = 8 * ((scan->rows + scan->batch_rows - 1) / scan->batch_rows);
    scan->vectors = hold(scan, given[0], -1);
    if (!PyErr_Occurred()) scan->starts = hold(scan, given[1], starts);
    if (!PyErr_Occurred()) scan->scales = hold(scan, given[2], -1);
    if (!PyErr_Occurred()) scan->scale_starts = hold(scan, given[3], starts);
    scan->value_bytes = scan->scales ? 1 : 2;
}

/* prepare(lanes, dim, lists, codes, centre_codes, narrow_width, rows, batch_rows, large, *arrays): what the searches of an index share. */
static PyObject *prepare(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given[ARRAYS];
    int lanes;
    Scan *scan = calloc(1, sizeof(Scan));
    if (!scan) return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(scan, "list_scan", free_scan);
    if (!capsule) {
        free(scan);
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iLLLLLLLpOOOOOOOOOOOOOOOOO", &lanes, &scan->dim, &scan->lists, &scan->codes.count,
                          &scan->centre_codes.count, &scan->narrow_width, &scan->rows, &scan->batch_rows, &scan->large,
                          &given[0], &given[1], &given[2], &given[3], &given[4], &given[5], &given[6], &given[7],
                          &given[8], &given[9], &given[10], &given[11], &given[12], &given[13], &given[14], &given[15],
                          &given[16]))
        goto failed;
    int64_t dim = scan->dim, lists = scan->lists, width = scan->narrow_width;
    if (dim < 1 || lists < 1 || !can_be_summed(scan->codes.count, dim) || width < 1 || scan->batch_rows < 1 ||
        (scan->centre_codes.count && !can_be_summed(scan->centre_codes.count, dim)) || lanes > processor() ||
        (lanes != 256 && lanes != 512)) {
        PyErr_SetString(PyExc_ValueError, "these codes, lists or lanes are none that can be scanned");
        goto failed;
    }
    scan->wide = lanes == 512;
    scan->rotation = hold(scan, given[0], dim * dim);
    scan->rotation_scale = hold(scan, given[1], 4 * dim);
    scan->narrow = hold(scan, given[2], lists * width);
    scan->narrow_scale = hold(scan, given[3], 4 * lists);
    scan->narrow_mean = hold(scan, given[4], 4 * width);
    scan->narrow_dims = hold(scan, given[5], 4 * width);
    scan->centroids = hold(scan, given[6], 4 * lists * dim);
    scan->codes.codebook = hold(scan, given[7], 4 * CENTROIDS * dim);
    scan->blocks = hold(scan, given[8], 8 * lists);
    scan->ids = hold(scan, given[9], 8 * lists);
    scan->sizes = hold(scan, given[10], 8 * lists);
    for (int64_t i = 0; scan->sizes && i < lists; i++) scan->entries += scan->sizes[i];
    int64_t blocks = scan->centre_codes.count ? (lists + BLOCK - 1) / BLOCK : 0;
    scan->centre_codes.codebook = hold(scan, given[11], 4 * CENTROIDS * dim);
    scan->centre_blocks = hold(scan, given[12], blocks * scan->centre_codes.count * CENTROIDS);
    if (!PyErr_Occurred()) hold_rows(scan, given + 13);
    if (PyErr_Occurred()) goto failed;
    for (int64_t i = 0; i < width; i++)
        if (scan->narrow_dims[i] < 0 || scan->narrow_dims[i] >= dim) {
            PyErr_SetString(PyExc_ValueError, "a narrow dimension is none of the vectors");
            goto failed;
        }
    return capsule;
failed:
    Py_DECREF(capsule);
    return NULL;
}

/* open_rows(lanes, dim, rows, batch_rows, large, vectors, starts, scales, scale_starts): stored rows alone, to compare all of them. */
static PyObject *open_rows(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given[4];
    int lanes;
    Scan *scan = calloc(1, sizeof(Scan));
    if (!scan) return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(scan, "list_scan", free_scan);
    if (!capsule) {
        free(scan);
        return NULL;
    }
    if (PyArg_ParseTuple(args, "iLLLpOOOO", &lanes, &scan->dim, &scan->rows, &scan->batch_rows, &scan->large, &given[0],
                         &given[1], &given[2], &given[3])) {
        scan->wide = lanes == 512;
        if (scan->dim < 1 || scan->batch_rows < 1 || lanes > processor() || (lanes != 256 && lanes != 512))
            PyErr_SetString(PyExc_ValueError, "these rows or lanes are none that can be compared");
        else
            hold_rows(scan, given);
    }
    if (!PyErr_Occurred()) return capsule;
    Py_DECREF(capsule);
    return NULL;
}

/* The best k of each query among the rows: blocks of them, which stay in the cache, with one query after the other. */
static int compare_all(const Scan *scan, const Comparison *asked, int64_t count, int64_t number, int64_t *ids,
                       float *scores) {
    Scored *found = malloc(sizeof(Scored) * (size_t)(asked->room * number));
    int64_t *sizes = calloc((size_t)number, sizeof(int64_t));
    float *least = malloc(sizeof(float) * (size_t)number);
    int good = found && sizes && least;
    for (int64_t i = 0; good && i < number; i++) least[i] = -INFINITY;
    for (int64_t i = 0; scan->large && asked->subset && i < count; i++)
        ask_disk_for(scan, asked->subset[i], asked->subset[i]);
    int64_t step = COMPARED_BYTES / (scan->value_bytes * scan->dim) + 1;
    int64_t ahead = scan->large && !asked->subset ? DISK_AHEAD / (scan->value_bytes * scan->dim) + 1 : 0, known = 0;
    for (int64_t first = 0; good && first < count; first += step) {
        int64_t wanted = first + step + ahead < count ? first + step + ahead : count;
        if (ahead && known < wanted) ask_disk_for(scan, known, wanted - 1);
        known = wanted;
        for (int64_t i = 0; i < number; i++) {
            int64_t last = first + step < count ? first + step : count;
            Scored *own = found + i * asked->room;
            sizes[i] = scan->wide ? compare_rows_512(scan, asked, i, first, last, own, sizes[i], least + i)
                                  : compare_rows_256(scan, asked, i, first, last, own, sizes[i], least + i);
        }
    }
    for (int64_t i = 0; good && i < number; i++) {
        Scored *own = found + i * asked->room;
        int64_t size = narrowed(own, sizes[i], asked->k, least + i);
        sort_by_score(own, size);
        for (int64_t j = 0; j < asked->k; j++) {
            ids[i * asked->k + j] = j < size ? own[j].id : -1;
            scores[i * asked->k + j] = j < size ? own[j].score : -INFINITY;
        }
    }
    free(found);
    free(sizes);
    free(least);
    return good;
}

/* compare(rows, queries, number, k, subset, excluded, ids, scores): fill `ids` and `scores`, both (number, k). */
static PyObject *compare(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *given[5];
    long long number;
    Comparison asked = {0};
    Py_buffer views[5] = {{0}};
    if (!PyArg_ParseTuple(args, "OOLLOOOO", &capsule, &given[0], &number, &asked.k, &given[1], &given[2], &given[3],
                          &given[4]))
        return NULL;
    Scan *scan = PyCapsule_GetPointer(capsule, "list_scan");
    if (!scan) return NULL;
    for (int i = 0; i < 5; i++) {
        int flags = i < 3 ? PyBUF_C_CONTIGUOUS : PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE;
        if (given[i] != Py_None && PyObject_GetBuffer(given[i], &views[i], flags) < 0) goto done;
    }
    asked.queries = views[0].buf, asked.subset = views[1].buf, asked.excluded = views[2].buf;
    asked.room = 2 * asked.k + 256;
    int64_t count = asked.subset ? views[1].len / 8 : scan->rows;
    if (number < 0 || asked.k < 1 || views[0].len != 4 * number * scan->dim || views[3].len != 8 * number * asked.k ||
        views[4].len != 4 * number * asked.k || (asked.excluded && views[2].len != 8 * number)) {
        PyErr_SetString(PyExc_ValueError, "queries, rows or results do not fit these vectors");
        goto done;
    }
    for (int64_t i = 0; asked.subset && i < count; i++)
        if (asked.subset[i] < 0 || asked.subset[i] >= scan->rows) {
            PyErr_SetString(PyExc_ValueError, "a row is none of these vectors");
            goto done;
        }
    int good;
    Py_BEGIN_ALLOW_THREADS;
    good = compare_all(scan, &asked, count, number, views[3].buf, views[4].buf);
    Py_END_ALLOW_THREADS;
    if (!good) PyErr_NoMemory();
done:
    for (int i = 0; i < 5; i++) PyBuffer_Release(&views[i]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static Scratch *take_scratch(Scan *scan) {
    Scratch *one = scan->free;
    if (one) {
        scan->free = one->next;
        return one;
    }
    return calloc(1, sizeof(Scratch));
}

/* Whether there is room for so many bytes, on a border of 64, now. */
static int make_room(Scratch *scratch, size_t bytes) {
    if (scratch->bytes < bytes) {
        free(scratch->memory);
        scratch->bytes = (bytes + 63) & ~(size_t)63;
        scratch->memory = aligned_alloc(64, scratch->bytes);
        if (!scratch->memory) scratch->bytes = 0;
    }
    return scratch->memory != NULL;
}

/* search(scan, queries, number, nprobe, count, k, allowed, exact, ids, scores): fill `ids` and `scores`, both (number,
   k) where exact, else (number, count); -1 and -inf where there are too few. */
static PyObject *search(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *asked, *bits, *ids_out, *scores_out;
    long long number;
    Probe probe = {0};
    Py_buffer queries = {0}, ids = {0}, scores = {0}, allowed = {0};
    if (!PyArg_ParseTuple(args, "OOLLLLOpOO", &capsule, &asked, &number, &probe.nprobe, &probe.count, &probe.k, &bits,
                          &probe.exact, &ids_out, &scores_out))
        return NULL;
    Scan *scan = PyCapsule_GetPointer(capsule, "list_scan");
    if (!scan || PyObject_GetBuffer(asked, &queries, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    int64_t width = probe.exact ? probe.k : probe.count;
    if (PyObject_GetBuffer(ids_out, &ids, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) goto done;
    if (PyObject_GetBuffer(scores_out, &scores, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) goto done;
    if (bits != Py_None && PyObject_GetBuffer(bits, &allowed, PyBUF_C_CONTIGUOUS) < 0) goto done;
    if (probe.nprobe < 1 || probe.count < 1 || probe.k < 1 || (probe.exact && !scan->vectors) ||
        queries.len != 4 * number * scan->dim || ids.len != 8 * number * width || scores.len != 4 * number * width ||
        (allowed.buf && allowed.len < (scan->rows + 7) / 8)) {
        PyErr_SetString(PyExc_ValueError, "queries, results or settings do not fit this index");
        goto done;
    }
    probe.allowed = allowed.buf;
    int64_t visited = most_of(1, probe.nprobe) * (scan->entries / scan->lists + 1);
    if (allowed.buf) visited = (int64_t)((double)visited * bits_of(allowed.buf, (scan->rows + 7) / 8) / scan->rows);
    probe.telling = most_of(TELLING_HITS * probe.k, visited / TELLING_SHARE);
    if (probe.nprobe >= scan->lists) probe.telling = INT64_MAX / 2; /* who asks for all lists gets all */
    probe.kept = probe.nprobe < scan->lists ? most_of(probe.count, probe.telling) : probe.count;
    int64_t group = number < GROUP ? number : GROUP;
    while (group > 1 && group * (int64_t)sizeof(Scored) * 4 * probe.kept > GROUP_BYTES) group /= 2;
    Scratch *scratch = take_scratch(scan);
    int failed = !scratch;
    Py_BEGIN_ALLOW_THREADS;
    Work work;
    failed = failed || !make_room(scratch, lay_out(scan, &probe, group, NULL, &work));
    if (!failed && number) lay_out(scan, &probe, group, scratch->memory, &work);
    for (int64_t first = 0; !failed && first < number; first += group) {
        int64_t count = number - first < group ? number - first : group;
        const float *from = (const float *)queries.buf + first * scan->dim;
        int64_t *id = (int64_t *)ids.buf + first * width;
        float *score = (float *)scores.buf + first * width;
        if (scan->wide)
            search_group_512(scan, &probe, from, count, &work, id, score);
        else
            search_group_256(scan, &probe, from, count, &work, id, score);
    }
    Py_END_ALLOW_THREADS;
    if (scratch) {
        scratch->next = scan->free;
        scan->free = scratch;
    }
    if (failed) PyErr_NoMemory();
done:
    PyBuffer_Release(&queries);
    PyBuffer_Release(&ids);
    PyBuffer_Release(&scores);
    PyBuffer_Release(&allowed);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

#else /* neither the processor nor the compiler that this is written for */

static int processor(void) { return 0; }
static PyObject *prepare(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    PyErr_SetString(PyExc_ValueError, "lists are not scanned on this processor");
    return NULL;
}
#define search prepare
#define open_rows prepare
#define compare prepare

#endif

static PyObject *lanes(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    return PyLong_FromLong(processor());
}

/* What storage/compiled.py asks for: another number wherever what is called from Python takes or gives something else. */
#define INTERFACE 2

static PyMethodDef methods[] = {
    {"lanes", lanes, METH_NOARGS, "Return the bits of the widest lanes that can be used here: 512, 256, or 0 for none."},
    {"prepare", prepare, METH_VARARGS, "Return what all searches of an index share."},
    {"search", search, METH_VARARGS, "Fill an array with the rows nearest to each query."},
    {"open_rows", open_rows, METH_VARARGS, "Return stored rows, to compare all of them."},
    {"compare", compare, METH_VARARGS, "Fill an array with the best of all rows for each query."},
    {"unit_rows", unit_rows, METH_VARARGS, "Fill an array with rows scaled to unit length, where that can be done."},
    {"open_strings", open_strings, METH_VARARGS, "Return columns of strings, to read some of them by row."},
    {"strings_at", strings_at, METH_VARARGS, "Return the strings of some rows."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_list_scan", NULL, 0, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__list_scan(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddIntConstant(made, "INTERFACE", INTERFACE) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
