// Sums over ranks.

// to[i] = the sum of from[i], from[stride + i], …, one number of each part, in the fixed balanced tree
// ((p0 + p1) + (p2 + p3)) + …. `totals` holds the subtotals of the levels whose bits are set in the number of
// parts so far.
extern "C" __global__ void sum_parts(int parts, int count, int stride, const float *from, float *to) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    float totals[31];
    for (int part = 0; part < parts; part++) {
        float right = from[(u64)part * stride + i];
        int level = 0;
        for (; part >> level & 1; level++) {
            right = totals[level] + right;
        }
        totals[level] = right;
    }
    int level = 0;
    while (!(parts >> level & 1)) {
        level++;
    }
    float sum = totals[level];
    for (level++; level < 31; level++) {
        if (parts >> level & 1) {
            sum = totals[level] + sum;
        }
    }
    to[i] = sum;
}
