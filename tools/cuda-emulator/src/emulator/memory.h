// Device memory: every allocation has inaccessible pages on both sides, is initialised to NaN, and stays
// inaccessible for a while after it is freed.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <deque>
#include <map>

namespace emulator {

constexpr size_t page = 4096;
constexpr size_t address_alignment = 256;
// Number of freed regions kept inaccessible before their addresses are reused.
constexpr size_t kept_regions = 2048;

class DeviceMemory {
public:
    static size_t total() {
        const char* text = getenv("CUDA_EMULATOR_MEMORY");
        return text != nullptr ? size_t(strtoull(text, nullptr, 10)) : size_t(2) << 30;
    }

    size_t available() const { return total() > used ? total() - used : 0; }

    // The address, or 0 if too little memory is left.
    unsigned long long allocate(size_t size) {
        size_t rounded = (size + address_alignment - 1) / address_alignment * address_alignment;
        if (rounded < size || rounded > available()) return 0;
        size_t inner = (rounded + page - 1) / page * page;
        void* outer = mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (outer == MAP_FAILED) return 0;
        char* inside = static_cast<char*>(outer) + page;
        if (mprotect(inside, inner, PROT_READ | PROT_WRITE) != 0) {
            munmap(outer, inner + 2 * page);
            return 0;
        }
        memset(inside, 0xff, inner);
        // At the end of its pages, so that an overrun hits the guard page.
        char* start = inside + inner - rounded;
        regions[reinterpret_cast<unsigned long long>(start)] = Region{static_cast<char*>(outer), inner, size, rounded};
        used += rounded;
        return reinterpret_cast<unsigned long long>(start);
    }

    bool release(unsigned long long address) {
        auto found = regions.find(address);
        if (found == regions.end()) return false;
        Region region = found->second;
        const unsigned char* bytes = reinterpret_cast<const unsigned char*>(address);
        for (size_t i = region.size; i < region.rounded; ++i)
            if (bytes[i] != 0xff) {
                fprintf(stderr, "cuda emulator: something wrote behind an allocation of %zu bytes\n", region.size);
                abort();
            }
        regions.erase(found);
        used -= region.rounded;
        // Mapping new inaccessible pages over the old ones returns the memory but keeps the addresses
        // reserved.
        size_t whole = region.inner + 2 * page;
        if (mmap(region.outer, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
            freed.push_back(region);
        if (freed.size() > kept_regions) {
            munmap(freed.front().outer, freed.front().inner + 2 * page);
            freed.pop_front();
        }
        return true;
    }

    void release_all() {
        while (!regions.empty()) release(regions.begin()->first);
    }

    bool contains(unsigned long long address, size_t size) const {
        auto after = regions.upper_bound(address);
        if (after == regions.begin()) return false;
        auto found = std::prev(after);
        size_t offset = address - found->first;
        return offset <= found->second.size && size <= found->second.size - offset;
    }

private:
    struct Region {
        char* outer;
        size_t inner;
        size_t size;
        size_t rounded;
    };

    std::map<unsigned long long, Region> regions;
    std::deque<Region> freed;
    size_t used = 0;
};

}  // namespace emulator
