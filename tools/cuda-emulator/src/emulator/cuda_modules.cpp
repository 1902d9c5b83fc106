// The driver API: modules, functions and launches.
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "driver.h"

namespace {

// The length of a shared library in memory: the end of the last item that its header refers to.
size_t image_size(const char* image) {
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    size_t end = header.e_shoff + size_t(header.e_shnum) * header.e_shentsize;
    for (unsigned i = 0; i < header.e_shnum; ++i) {
        Elf64_Shdr section;
        memcpy(&section, image + header.e_shoff + i * header.e_shentsize, sizeof section);
        if (section.sh_type != SHT_NOBITS) end = std::max(end, size_t(section.sh_offset + section.sh_size));
    }
    return end;
}

bool write_all(int file, const char* bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(file, bytes, size);
        if (written <= 0) return false;
        bytes += written;
        size -= size_t(written);
    }
    return true;
}

}  // namespace

EMULATOR_API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    ENTER_CONTEXT();
    const char* bytes = static_cast<const char*>(image);
    std::string contents;
    // The emulated NVRTC returns as PTX a comment with the path of the library.
    const char* mark = "// emulated: ";
    if (strncmp(bytes, mark, strlen(mark)) == 0) {
        std::string path = bytes + strlen(mark);
        path = path.substr(0, path.find('\n'));
        FILE* file = fopen(path.c_str(), "rb");
        if (file == nullptr) return CUDA_ERROR_INVALID_IMAGE;
        char buffer[65536];
        for (size_t size; (size = fread(buffer, 1, sizeof buffer, file)) > 0;) contents.append(buffer, size);
        fclose(file);
    } else if (memcmp(bytes, ELFMAG, SELFMAG) == 0) {
        contents.assign(bytes, image_size(bytes));
    } else {
        return CUDA_ERROR_INVALID_IMAGE;
    }

    // A separate file, so that every load has its own variables. It stays open: the loader takes two
    // libraries with the same path for one, and the path is the number of the file.
    int file = memfd_create("kernels", MFD_CLOEXEC);
    if (file < 0 || !write_all(file, contents.data(), contents.size())) return CUDA_ERROR_OUT_OF_MEMORY;
    std::string path = "/proc/self/fd/" + std::to_string(file);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    using Describe = const emulator::Module* (*)();
    Describe describe = library != nullptr ? reinterpret_cast<Describe>(dlsym(library, "emulator_module")) : nullptr;
    if (describe == nullptr || describe()->build_key != emulator::build_key) {
        if (describe == nullptr) {
            const char* reason = dlerror();
            fprintf(stderr, "cuda emulator: cannot load a module: %s\n",
                    reason != nullptr ? reason : "not from the emulated NVRTC");
        }
        if (library != nullptr) dlclose(library);
        close(file);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = new LoadedModule{library, file, describe(), {}};
    driver.modules.insert(*module);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuModuleUnload(CUmodule module) {
    ENTER_CONTEXT();
    if (driver.modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult result = finish_all(current_context)) return result;
    driver.modules.erase(module);
    for (CUfunction function : module->functions) {
        driver.functions.erase(function);
        delete function;
    }
    dlclose(module->library);
    close(module->file);
    delete module;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    ENTER_CONTEXT();
    if (driver.modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    for (CUfunction known : module->functions)
        if (strcmp(known->kernel->name, name) == 0) {
            *function = known;
            return CUDA_SUCCESS;
        }
    for (unsigned i = 0; i < module->module->kernel_count; ++i)
        if (strcmp(module->module->kernels[i].name, name) == 0) {
            *function = new Function{module->module, &module->module->kernels[i]};
            module->functions.push_back(*function);
            driver.functions.insert(*function);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

EMULATOR_API CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
        case 0: *value = int(function->kernel->max_threads); break;
        case 1: case 2: case 3: *value = 0; break;         // static shared, constant and local memory
        case 4: *value = 32; break;                        // registers
        case 5: case 6: *value = 90; break;                // versions of PTX and binary
        case 8: *value = function->dynamic_shared_limit; break;
        case 7: *value = 0; break;
        case 9: *value = -1; break;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute == 9) return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (attribute != 8 || value < 0 || value > int(emulator::shared_limit)) return CUDA_ERROR_INVALID_VALUE;
    function->dynamic_shared_limit = value;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (threads < 1 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    *blocks = std::min(2048 / threads, 32);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                     unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                     CUstream stream, void** parameters, void** extra) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    if (grid_x < 1 || grid_x > 0x7fffffff || grid_y < 1 || grid_y > 65535 || grid_z < 1 || grid_z > 65535)
        return CUDA_ERROR_INVALID_VALUE;
    if (block_x < 1 || block_x > 1024 || block_y < 1 || block_y > 1024 || block_z < 1 || block_z > 64)
        return CUDA_ERROR_INVALID_VALUE;
    const emulator::Kernel& kernel = *function->kernel;
    if (block_x * block_y * block_z > kernel.max_threads) return CUDA_ERROR_INVALID_VALUE;
    if (shared_bytes > unsigned(function->dynamic_shared_limit)) return CUDA_ERROR_INVALID_VALUE;
    if (kernel.parameter_count > 0 && parameters == nullptr) return CUDA_ERROR_INVALID_VALUE;

    // The caller's parameters are valid until this call returns.
    size_t size = 0;
    std::vector<size_t> offsets;
    for (unsigned i = 0; i < kernel.parameter_count; ++i) {
        const emulator::Parameter& parameter = kernel.parameters[i];
        size = (size + parameter.alignment - 1) / parameter.alignment * parameter.alignment;
        offsets.push_back(size);
        size += parameter.size;
    }
    // At least as wide as any parameter's alignment.
    struct alignas(64) Line {
        char bytes[64];
    };
    std::shared_ptr<Line[]> values(new Line[size / sizeof(Line) + 1]);
    for (unsigned i = 0; i < kernel.parameter_count; ++i)
        memcpy(values[0].bytes + offsets[i], parameters[i], kernel.parameters[i].size);

    auto run = [=] {
        std::vector<void*> pointers;
        for (size_t offset : offsets) pointers.push_back(values[0].bytes + offset);
        emulator::Launch launch = {function->module,
                                   function->kernel,
                                   {grid_x, grid_y, grid_z},
                                   {block_x, block_y, block_z},
                                   shared_bytes,
                                   pointers.data()};
        emulator::run_blocks(launch);
    };
    return submit(stream, Work{kernel.name, true, run});
}
