/* What list_scan.c and list_scan_lanes.h share: what an index and a search consist of, and choosing the best of many. */

#define BLOCK 32    /* rows whose codes stand together */
#define CENTROIDS 16 /* of a 4-bit code */
#define AHEAD 3     /* blocks of codes, and rows, that are on their way to the cache while others are summed */
#define ROWS_AHEAD 24
#define CENTRES_AHEAD 16
#define COMPARED_BYTES (1 << 18) /* of rows that several queries are compared with before the next are read */
#define SUMS 64 /* that a score is added up in */
#define ARRAYS 17
#define GROUP 128 /* queries that go through the lists together, so that a list is read once for all of them */
#define GROUP_BYTES (1 << 24) /* that their candidates may take */
#define FIRST_LISTS 2 /* that a query visits in its first stage; after each stage there are four times as many */
#define LISTS_A_STAGE 4
#define SPREADS 3.5f /* that a row's codes hardly ever add up to above their mean: one normal number in 4,000 does */
#define TELLING_HITS 4 /* a list matters while it may have a row among the best so far: so many for each hit, */
#define TELLING_SHARE 256 /* and one of so many entries that are visited, as who visits many wants to miss little */
#define CENTRES_COMPARED 4 /* for each list that is visited, where codes say which, and at most so many further */
#define CENTRES_FURTHER 128
#define BINS 256
#define PAGE 4096 /* the least that a processor of this kind maps */
#define ASKED_BYTES (1 << 17) /* that are asked of a disk at a time: of more the system may leave out the rest */
#define DISK_AHEAD (1 << 24) /* bytes that are on their way from a disk while rows are compared one after the other */
#define ASKING 64 /* searches whose rows are asked for together, once one had to wait for a disk */
#define SHORT 16

typedef struct {
    float score;
    int64_t id;
} Scored;

typedef struct Scratch {
    struct Scratch *next;
    uint8_t *memory;
    size_t bytes;
} Scratch;

typedef struct { /* 4-bit codes: how many a row has, and the centroids of each, dimension by dimension */
    int64_t count;
    const float *codebook;
} Codes;

typedef struct {
    Py_buffer held[ARRAYS];
    int count;
    int wide; /* AVX-512 and not AVX2 */
    int large; /* the stored rows are more than memory holds */
    int asking; /* searches to come that ask a disk for their rows: threads may overwrite each other's, which is no harm */
    int64_t dim, lists, entries, narrow_width, rows, batch_rows;
    Codes codes, centre_codes;
    const uint8_t *centre_blocks; /* codes of the lists' centroids; NULL where the narrow bytes alone choose */
    const int8_t *rotation;
    const float *rotation_scale;
    const int8_t *narrow;
    const float *narrow_scale, *narrow_mean;
    const int32_t *narrow_dims;
    const float *centroids;
    const uint8_t *const *blocks;
    const int64_t *const *ids;
    const int64_t *sizes;
    const char *vectors;
    const int64_t *starts, *scale_starts;
    const uint16_t *scales; /* of rows at one byte a value; NULL where rows are float16 */
    int64_t value_bytes;
    Scratch *free; /* only touched by who holds the interpreter's lock */
} Scan;

typedef struct {
    int64_t nprobe, count, k;
    int64_t telling, kept; /* the rank that says which lists still matter, and how many candidates are kept for both */
    const uint8_t *allowed; /* a bit for each row, or NULL for all */
    int exact;              /* score the stored rows and return the best k, and not what the codes rank first */
} Probe;

typedef struct { /* one query of a group */
    float *query; /* as the lists see it: rotated */
    uint8_t *table;
    Scored *found;
    int64_t size, lists;
    float floor, step, least; /* of a score by codes: what a sum of 0 says, a step, and what a candidate must reach */
    float most, telling;      /* what the codes of a row hardly ever add up to; what a list must be able to reach */
} Asked;

typedef struct {
    int64_t list, query;
    float score; /* of the list's centroid */
} Visit;

typedef struct {
    Asked *asked;
    Visit *visits, *sorted;
    Scored *lists;
    int64_t *ends, room;
    int16_t *shorts;
    float *narrow, *distances;
    uint8_t *centre_table;
    uint16_t *sums;
} Work;

typedef struct {
    const float *queries;
    const int64_t *subset, *excluded; /* NULL for all rows, and for none */
    int64_t k, room;
} Comparison;

static int64_t bits_of(const uint8_t *bytes, int64_t count) {
    int64_t bits = 0;
    for (int64_t i = 0; i < count; i++) bits += __builtin_popcount(bytes[i]);
    return bits;
}

static inline int64_t most_of(int64_t one, int64_t other) { return one > other ? one : other; }

/* Higher score first, then lower id. */
static inline int before(Scored a, Scored b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

/* Bring the first `wanted` to the front, in no order: Hoare's selection. */
static void select_first(Scored *items, int64_t count, int64_t wanted) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        Scored pivot = items[low + (high - low) / 2];
        int64_t left = low, right = high;
        while (left <= right) {
            while (before(items[left], pivot)) left++;
            while (before(pivot, items[right])) right--;
            if (left <= right) {
                Scored other = items[left];
                items[left++] = items[right];
                items[right--] = other;
            }
        }
        if (wanted - 1 <= right)
            high = right;
        else if (wanted - 1 >= left)
            low = left;
        else
            return;
    }
}

static inline int is_before(Scored a, Scored b) { return a.id < b.id || (a.id == b.id && a.score > b.score); }

/* Quicksort about the middle of three, and insertion for what is short; the library's qsort takes longer,
   as it calls for each comparison. */
#define SORTED(name, FIRST)                                                               \
    static void name(Scored *items, int64_t count) {                                      \
        while (count > SHORT) {                                                           \
            Scored one = items[0], pivot = items[count / 2], other = items[count - 1];    \
            if (FIRST(pivot, one)) { Scored kept = one; one = pivot; pivot = kept; }      \
            if (FIRST(other, pivot)) pivot = FIRST(other, one) ? one : other;             \
            int64_t left = 0, right = count - 1;                                          \
            while (left <= right) {                                                       \
                while (FIRST(items[left], pivot)) left++;                                 \
                while (FIRST(pivot, items[right])) right--;                               \
                if (left <= right) {                                                      \
                    Scored kept = items[left];                                            \
                    items[left++] = items[right];                                         \
                    items[right--] = kept;                                                \
                }                                                                         \
            }                                                                             \
            if (right + 1 < count - left) {                                               \
                name(items, right + 1);                                                   \
                items += left, count -= left;                                             \
            } else {                                                                      \
                name(items + left, count - left);                                         \
                count = right + 1;                                                        \
            }                                                                             \
        }                                                                                 \
        for (int64_t i = 1; i < count; i++) {                                             \
            Scored item = items[i];                                                       \
            int64_t at = i;                                                               \
            for (; at && FIRST(item, items[at - 1]); at--) items[at] = items[at - 1];     \
            items[at] = item;                                                             \
        }                                                                                 \
    }
SORTED(sort_by_score, before)
SORTED(sort_by_id, is_before)

/* Make room among the candidates: the best `count` stay, and a further one has to be as good as the last of them. */
static int64_t narrowed(Scored *found, int64_t size, int64_t count, float *least) {
    if (size <= count) return size;
    select_first(found, size, count);
    *least = found[0].score;
    for (int64_t i = 1; i < count; i++)
        if (found[i].score < *least) *least = found[i].score;
    return count;
}

/* Bring numbers to 16 bits, and return what a step is worth; the sum of their products with bytes stays within 31. */
static float to_shorts(const float *numbers, int64_t count, int16_t *shorts) {
    float most = 0, limit = 2147483648.0f / (128.0f * (float)count);
    for (int64_t i = 0; i < count; i++) most = fabsf(numbers[i]) > most ? fabsf(numbers[i]) : most;
    if (!(most > 0)) most = 1;
    if (limit > 32767) limit = 32767;
    float steps = limit / most;
    for (int64_t i = 0; i < count; i++) shorts[i] = (int16_t)(numbers[i] * steps + (numbers[i] < 0 ? -0.5f : 0.5f));
    return most / limit;
}

/* The score of the candidate of this rank; -inf where there are fewer. */
static float score_of_rank(Scored *found, int64_t size, int64_t rank) {
    if (size < rank) return -INFINITY;
    select_first(found, size, rank);
    float least = found[0].score;
    for (int64_t i = 1; i < rank; i++) least = found[i].score < least ? found[i].score : least;
    return least;
}

/* What the entries of a table hardly ever add up to, one for each code, were each as likely as the others. */
static float hardly_more(const uint8_t *table, int64_t codes) {
    float mean = 0, variance = 0;
    for (int64_t code = 0; code < codes; code++, table += CENTROIDS) {
        int32_t sum = 0, squares = 0;
        for (int i = 0; i < CENTROIDS; i++) sum += table[i], squares += table[i] * table[i];
        float middle = (float)sum / CENTROIDS;
        mean += middle;
        variance += (float)squares / CENTROIDS - middle * middle;
    }
    return mean + SPREADS * sqrtf(variance);
}

static inline const char *stored_row(const Scan *scan, int64_t id) {
    return scan->vectors + scan->value_bytes * (scan->starts[id / scan->batch_rows] + id * scan->dim);
}

/* Ask the system for stored rows that may be on disk, and do not wait for them. */
static void ask_disk_for(const Scan *scan, int64_t first, int64_t last) {
    const char *end = stored_row(scan, last) + scan->value_bytes * scan->dim;
    for (char *at = (char *)((uintptr_t)stored_row(scan, first) & ~(uintptr_t)(PAGE - 1)); at < end; at += ASKED_BYTES)
        madvise(at, (size_t)(end - at < ASKED_BYTES ? end - at : ASKED_BYTES), MADV_WILLNEED);
}

/* How often this thread has waited for the disk. */
static int64_t waits(void) {
    struct rusage used;
    return getrusage(RUSAGE_THREAD, &used) ? 0 : used.ru_majflt;
}

/* Keep an entry of each row once, in the order of rows: a spilled one stands in two lists. */
static int64_t each_once(Scored *found, int64_t size) {
    int64_t kept = 0;
    sort_by_id(found, size);
    for (int64_t i = 0; i < size; i++)
        if (!kept || found[kept - 1].id != found[i].id) found[kept++] = found[i];
    return kept;
}

/* Ask for memory into the second cache: it has room for more that is on its way than the first. */
static inline void ask_for(const char *start, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch(start + at, _MM_HINT_T1);
}

/* What comes to the cache while other blocks are summed: of the list of which visit, and which of its blocks. */
typedef struct {
    const Visit *visits;
    int64_t count, number, block;
} Ahead;

/* The block that is to be fetched next, whose ids are asked for; NULL after the last. */
static inline const uint8_t *next_ahead(const Scan *scan, Ahead *ahead) {
    while (ahead->number < ahead->count && ahead->block * BLOCK >= scan->sizes[ahead->visits[ahead->number].list]) {
        int64_t list = ahead->visits[ahead->number++].list;
        while (ahead->number < ahead->count && ahead->visits[ahead->number].list == list) ahead->number++;
        ahead->block = 0;
    }
    if (ahead->number == ahead->count) return NULL;
    int64_t list = ahead->visits[ahead->number].list, block = ahead->block++;
    ask_for((const char *)(scan->ids[list] + block * BLOCK), 8 * BLOCK);
    return scan->blocks[list] + block * scan->codes.count * CENTROIDS;
}

static Ahead begun(const Scan *scan, const Visit *visits, int64_t count) {
    Ahead ahead = {visits, count, 0, 0};
    for (int i = 0; i < AHEAD; i++) {
        const uint8_t *next = next_ahead(scan, &ahead);
        if (next) ask_for((const char *)next, scan->codes.count * CENTROIDS);
    }
    return ahead;
}

/* The visits of a group's queries to their lists `first` to `last`, but to those where nothing can be found any more,
   in work->sorted: of one query in its order, of several list by list. Returns how many. */
static int64_t visits_of(const Scan *scan, int64_t most, int64_t number, int64_t first, int64_t last, Work *work) {
    int64_t count = 0, end = 0;
    if (number > 1) memset(work->ends, 0, sizeof(int64_t) * (size_t)scan->lists);
    for (int64_t i = 0; i < number; i++) {
        Asked *asked = work->asked + i;
        for (int64_t at = first; at < last && at < asked->lists; at++) {
            Visit *visit = work->visits + i * most + at;
            if (visit->score + asked->most < asked->telling) {
                visit->list = -1;
                continue;
            }
            if (number > 1)
                work->ends[visit->list]++;
            else
                work->sorted[count] = *visit;
            count++;
        }
    }
    if (number == 1) return count;
    for (int64_t list = 0; list < scan->lists; list++) {
        int64_t own = work->ends[list];
        work->ends[list] = end;
        end += own;
    }
    for (int64_t i = 0; i < number; i++)
        for (int64_t at = first; at < last && at < work->asked[i].lists; at++) {
            const Visit *visit = work->visits + i * most + at;
            if (visit->list >= 0) work->sorted[work->ends[visit->list]++] = *visit;
        }
    return count;
}

/* A rank that at least `wanted` sums reach, and few more: the lower edge of a bin. */
static uint16_t edge_of_best(const uint16_t *sums, int64_t count, int64_t wanted) {
    int64_t bins[BINS] = {0}, reached = 0;
    uint16_t least = 65535, most = 0;
    for (int64_t i = 0; i < count; i++) {
        least = sums[i] < least ? sums[i] : least;
        most = sums[i] > most ? sums[i] : most;
    }
    int shift = 0, bin = BINS;
    while ((most - least) >> shift >= BINS) shift++;
    for (int64_t i = 0; i < count; i++) bins[(sums[i] - least) >> shift]++;
    while (bin > 0 && reached < wanted) reached += bins[--bin];
    return (uint16_t)(least + (bin << shift));
}

static void *part(uint8_t *memory, size_t *used, size_t each, int64_t count) {
    size_t start = (*used + 63) & ~(size_t)63;
    *used = start + each * (size_t)count;
    return memory ? memory + start : NULL;
}

/* Lay out what a group of queries needs, and return how many bytes that is; without memory only this. */
static size_t lay_out(const Scan *scan, const Probe *probe, int64_t group, uint8_t *memory, Work *work) {
    size_t used = 0;
    int64_t visits = group * (probe->nprobe < scan->lists ? probe->nprobe : scan->lists);
    int64_t codes = scan->codes.count * CENTROIDS, centre_codes = scan->centre_codes.count * CENTROIDS;
    work->room = 4 * probe->kept + 8 * BLOCK;
    work->asked = part(memory, &used, sizeof(Asked), group);
    work->visits = part(memory, &used, sizeof(Visit), visits);
    work->sorted = part(memory, &used, sizeof(Visit), visits);
    work->lists = part(memory, &used, sizeof(Scored), scan->lists);
    work->ends = part(memory, &used, sizeof(int64_t), scan->lists);
    work->shorts = part(memory, &used, sizeof(int16_t), scan->dim + 64);
    work->narrow = part(memory, &used, sizeof(float), scan->narrow_width);
    work->distances = part(memory, &used, sizeof(float), codes > centre_codes ? codes : centre_codes);
    work->centre_table = part(memory, &used, 1, centre_codes);
    work->sums = part(memory, &used, sizeof(uint16_t), scan->lists + BLOCK);
    float *queries = part(memory, &used, sizeof(float), group * scan->dim);
    uint8_t *tables = part(memory, &used, 1, group * codes);
    Scored *found = part(memory, &used, sizeof(Scored), group * work->room);
    for (int64_t i = 0; memory && i < group; i++) {
        Asked one = {.query = queries + i * scan->dim, .table = tables + i * codes, .found = found + i * work->room};
        work->asked[i] = one;
    }
    return used + 64;
}
