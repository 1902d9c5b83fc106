// NVRTC: compiles kernels for the host with g++. A "cubin" is a shared library with a table of kernels that
// the emulated driver reads.
//
// There are two passes. The first runs the preprocessor alone on the unchanged program: its output shows
// which kernels exist. The second compiles the result after `device.h`, which defines the dialect.
//
// Headers of a program are files for the first pass. A file of the same name in `stand_ins/` replaces a header,
// for code with inline PTX, which g++ cannot compile.
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <string>
#include <vector>

#define EMULATOR_API extern "C" __attribute__((visibility("default")))

extern char** environ;

namespace {

enum Result {
    success = 0,
    out_of_memory = 1,
    program_creation_failure = 2,
    invalid_input = 3,
    invalid_program = 4,
    invalid_option = 5,
    compilation = 6,
    builtin_operation_failure = 7,
    internal_error = 11,
};

constexpr int version_major = 13, version_minor = 0;

struct Program {
    std::string source;
    std::string name;
    std::string log;
    std::string cubin;
    std::string ptx;
    // Texts by the names in `#include` directives, which must not contain folders.
    std::map<std::string, std::string> headers;
};

// ------------------------------------------------------------------------------------------------ options

bool starts_with(const std::string& text, const char* start) { return text.compare(0, strlen(start), start) == 0; }

bool one_of(const std::string& text, std::initializer_list<const char*> words) {
    for (const char* word : words)
        if (text == word) return true;
    return false;
}

bool is_architecture(const std::string& text) {
    if (!starts_with(text, "sm_") && !starts_with(text, "compute_")) return false;
    std::string number = text.substr(text.find('_') + 1);
    if (!number.empty() && (number.back() == 'a' || number.back() == 'f')) number.pop_back();
    return one_of(number, {"75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121"});
}

struct Options {
    std::vector<std::string> definitions;
    std::string standard = "c++17";
    bool contract = true;
};

// Returns false, with a line for the log, if NVRTC would reject an option.
bool read_options(int count, const char* const* texts, Options& options, std::string& log) {
    for (int i = 0; i < count; ++i) {
        std::string text = texts[i];
        // Long options have one or two dashes.
        std::string option = starts_with(text, "--") ? text.substr(1) : text;
        std::string value = option.find('=') != std::string::npos ? option.substr(option.find('=') + 1) : "";
        if (starts_with(option, "-D") && option.size() > 2) {
            options.definitions.push_back(option);
        } else if (starts_with(option, "-define-macro=") && !value.empty()) {
            options.definitions.push_back("-D" + value);
        } else if (starts_with(option, "-std=") && one_of(value, {"c++11", "c++14", "c++17", "c++20"})) {
            // The table of kernels needs C++17.
            options.standard = value == "c++20" ? value : "c++17";
        } else if (starts_with(option, "-gpu-architecture=") || starts_with(option, "-arch=")) {
            if (!is_architecture(value)) {
                log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
                return false;
            }
            if (one_of(value, {"sm_90a", "compute_90a"})) options.definitions.push_back("-D__CUDA_ARCH_FEAT_SM90_ALL");
        } else if (starts_with(option, "-fmad=") && one_of(value, {"true", "false"})) {
            options.contract = value == "true";
        } else if (one_of(option, {"-use_fast_math", "-lineinfo", "-generate-line-info", "-extra-device-vectorization",
                                   "-device-as-default-execution-space", "-default-device", "-disable-warnings", "-w",
                                   "-restrict", "-ftz=true", "-ftz=false", "-prec-div=true", "-prec-div=false",
                                   "-prec-sqrt=true", "-prec-sqrt=false"}) ||
                   starts_with(option, "-maxrregcount=") || starts_with(option, "-split-compile=")) {
            // Options without effect on host code.
        } else {
            log = "nvrtc: error: unrecognized option " + text + " found\n";
            return false;
        }
    }
    return true;
}

// -------------------------------------------------------------------------------------------------- files

std::string read_file(const std::string& path) {
    std::string contents;
    FILE* file = fopen(path.c_str(), "rb");
    if (file == nullptr) return contents;
    char buffer[65536];
    for (size_t size; (size = fread(buffer, 1, sizeof buffer, file)) > 0;) contents.append(buffer, size);
    fclose(file);
    return contents;
}

bool write_file(const std::string& path, const std::string& contents) {
    FILE* file = fopen(path.c_str(), "wb");
    if (file == nullptr) return false;
    bool complete = fwrite(contents.data(), 1, contents.size(), file) == contents.size();
    return fclose(file) == 0 && complete;
}

// The folder of this library, which also contains `device.h`.
std::string folder_of_this_library() {
    Dl_info information;
    if (dladdr(reinterpret_cast<void*>(&folder_of_this_library), &information) == 0) return ".";
    std::string path = information.dli_fname;
    size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

// Writes the headers of a program, or their stand-ins, to a folder.
bool write_headers(const Program& program, const std::string& folder, const std::string& stand_ins) {
    // A process of the same number may have left one.
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return false;
    for (const auto& [name, text] : program.headers) {
        std::string stand_in = read_file(stand_ins + "/" + name);
        if (!write_file(folder + "/" + name, stand_in.empty() ? text : stand_in)) return false;
    }
    return true;
}

void remove_headers(const Program& program, const std::string& folder) {
    for (const auto& [name, text] : program.headers) unlink((folder + "/" + name).c_str());
    rmdir(folder.c_str());
}

void remove_all(std::string& text, const std::string& part) {
    for (size_t place = 0; (place = text.find(part, place)) != std::string::npos;) text.erase(place, part.size());
}

// Runs g++; its output goes to the file `messages`.
bool run_compiler(std::vector<std::string> arguments, const std::string& messages) {
    arguments.insert(arguments.begin(), "g++");
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(&argument[0]);
    pointers.push_back(nullptr);
    // Forces English messages, so that tests can search for words in them.
    std::vector<char*> environment;
    std::string locale = "LC_ALL=C";
    for (char** variable = environ; *variable != nullptr; ++variable)
        if (!starts_with(*variable, "LC_ALL=")) environment.push_back(*variable);
    environment.push_back(&locale[0]);
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t child;
    int spawned = posix_spawnp(&child, "g++", &actions, nullptr, pointers.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (spawned != 0) return false;
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// --------------------------------------------------------------------------------------- reading programs

// Tokenises a preprocessed program, which has no comments.
class Scanner {
public:
    Scanner(const std::string& text, size_t from) : text(text), place(from) {}

    // The next word, number, string or operator; empty at the end.
    std::string next() {
        for (;;) {
            while (place < text.size() && isspace(static_cast<unsigned char>(text[place]))) ++place;
            // Line markers of the preprocessor: `# 12 "name"`.
            if (place < text.size() && text[place] == '#' && (place == 0 || text[place - 1] == '\n')) {
                while (place < text.size() && text[place] != '\n') ++place;
                continue;
            }
            break;
        }
        start = place;
        if (place >= text.size()) return "";
        char first = text[place++];
        if (first == '"' || first == '\'') {
            while (place < text.size() && text[place] != first) place += text[place] == '\\' ? 2 : 1;
            if (place < text.size()) ++place;
        } else if (is_letter(first)) {
            while (place < text.size() && is_letter(text[place])) ++place;
        }
        return text.substr(start, place - start);
    }

    // The text between the next pair of brackets, without the brackets.
    std::string bracketed() {
        if (next() != "(") return "";
        size_t from = place;
        for (int depth = 1; depth > 0;) {
            std::string word = next();
            if (word.empty()) return "";
            depth += word == "(" ? 1 : word == ")" ? -1 : 0;
        }
        return text.substr(from, place - 1 - from);
    }

    static bool is_letter(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

    const std::string& text;
    size_t place;
    size_t start = 0;
};

std::string first_argument(const std::string& arguments) {
    int depth = 0;
    for (size_t i = 0; i < arguments.size(); ++i) {
        if (arguments[i] == '(') ++depth;
        if (arguments[i] == ')') --depth;
        if (arguments[i] == ',' && depth == 0) return arguments.substr(0, i);
    }
    return arguments;
}

struct Found {
    std::string name;
    std::string max_threads;
};

// Every `__global__ void NAME(`, once.
std::vector<Found> find_kernels(const std::string& text) {
    std::vector<Found> kernels;
    Scanner scanner(text, 0);
    std::string bounds;
    for (std::string word; !(word = scanner.next()).empty();) {
        if (word == ";" || word == "}") bounds.clear();
        if (word == "__launch_bounds__") bounds = first_argument(scanner.bracketed());
        if (word != "__global__") continue;
        std::string name;
        for (;;) {
            word = scanner.next();
            if (word.empty() || word == "(" || word == ";") break;
            if (word == "__launch_bounds__")
                bounds = first_argument(scanner.bracketed());
            else if (word == "__attribute__" || word == "__align__")
                scanner.bracketed();
            else
                name = word;
        }
        bool known = name.empty();
        for (const Found& kernel : kernels) known = known || kernel.name == name;
        if (!known) kernels.push_back({name, bounds.empty() ? "1024" : bounds});
    }
    return kernels;
}

// Replaces `extern __shared__ TYPE NAME[];` by a pointer to the buffer that the driver prepares for each
// block.
std::string replace_dynamic_shared(const std::string& text) {
    std::string result;
    size_t copied = 0;
    Scanner scanner(text, 0);
    for (std::string word; !(word = scanner.next()).empty();) {
        if (word != "extern") continue;
        size_t begin = scanner.start;
        std::string type, name;
        bool shared = false;
        for (;;) {
            word = scanner.next();
            if (word.empty() || word == "[" || word == ";" || word == "{" || word[0] == '"') break;
            if (word == "__shared__") {
                shared = true;
            } else if (word == "__align__" || word == "alignas" || word == "__attribute__") {
                scanner.bracketed();
            } else {
                type += name.empty() ? "" : name + " ";
                name = word;
            }
        }
        if (!shared || word != "[") continue;
        while (!word.empty() && word != ";") word = scanner.next();
        result += text.substr(copied, begin - copied);
        result += type + "* const " + name + " = reinterpret_cast<" + type + "*>(emulator::dynamic_shared);";
        // Preserves the line numbers of later lines.
        for (size_t i = begin; i < scanner.place; ++i)
            if (text[i] == '\n') result += '\n';
        copied = scanner.place;
    }
    return result + text.substr(copied);
}

std::string registration(const std::vector<Found>& kernels) {
    std::string text = "\n# 1 \"registration\"\n";
    text += "namespace {\nconst emulator::Kernel emulator_kernels[] = {\n";
    for (const Found& kernel : kernels)
        text += "    emulator::Registered<&" + kernel.name + ">::kernel(\"" + kernel.name + "\", unsigned(" +
                kernel.max_threads + ")),\n";
    text += "    emulator::Kernel{},\n};\n";
    text += "const emulator::Module emulator_description = {\n";
    text += "    emulator::build_key, &threadIdx.x, &blockIdx.x, &blockDim.x, &gridDim.x, &emulator::lane,\n";
    text += "    &emulator::runtime, emulator::dynamic_shared, emulator_kernels, " + std::to_string(kernels.size()) + ",\n};\n}\n";
    text += "extern \"C\" __attribute__((visibility(\"default\"))) const emulator::Module* emulator_module() {\n";
    text += "    return &emulator_description;\n}\n";
    return text;
}

// ---------------------------------------------------------------------------------------------- compiling

std::string hash(const std::string& text) {
    unsigned long long a = 0xcbf29ce484222325ull, b = text.size();
    for (unsigned char byte : text) {
        a = (a ^ byte) * 0x100000001b3ull;
        b = (b + byte) * 0x9e3779b97f4a7c15ull;
        b ^= b >> 29;
    }
    char digits[40];
    snprintf(digits, sizeof digits, "%016llx%016llx", a, b);
    return digits;
}

Result compile(Program& program, const Options& options) {
    static std::atomic<unsigned> number{0};
    std::string folder = folder_of_this_library();
    // Compiled programs are cached next to this library for later test processes.
    std::string kept = folder + "/programs";
    mkdir(kept.c_str(), 0700);
    std::string unique = std::to_string(getpid()) + "-" + std::to_string(number++);
    std::string part = kept + "/" + unique;
    std::string source = part + ".cu.cpp", preprocessed = part + ".cpp", messages = part + ".log", built = part + ".so";
    std::string headers = part + ".headers";

    std::string line_name = program.name.empty() ? "default_program" : program.name;
    std::string quoted;
    for (char c : line_name) quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);

    std::vector<std::string> common = {"-std=" + options.standard};
    std::vector<std::string> first = common;
    first.insert(first.end(), options.definitions.begin(), options.definitions.end());
    first.push_back("-D__CUDACC_VER_MAJOR__=" + std::to_string(version_major));
    first.push_back("-D__CUDACC_VER_MINOR__=" + std::to_string(version_minor));
    first.push_back("-I" + headers);
    for (const char* argument : {"-E", "-nostdinc", "-x", "c++", "-o"}) first.push_back(argument);
    first.push_back(preprocessed);
    first.push_back(source);

    Result result = internal_error;
    std::string text;
    if (!write_file(source, "#line 1 \"" + quoted + "\"\n" + program.source) ||
        !write_headers(program, headers, folder + "/stand_ins")) {
        program.log = "nvrtc: error: cannot write to " + kept + "\n";
    } else if (!run_compiler(first, messages)) {
        result = compilation;
    } else {
        text = read_file(preprocessed);
        // The preamble before the program's first line names the file of this run, and lines about headers name
        // their folder; the same program must give the same text.
        size_t begin = text.find("# 1 \"" + quoted + "\"");
        if (begin != std::string::npos) text.erase(0, begin);
        remove_all(text, headers + "/");
        text = "#include \"device.h\"\n" + replace_dynamic_shared(text) + registration(find_kernels(text));
        std::string flags = options.standard + (options.contract ? " fast" : " off");
        std::string library = kept + "/" + hash(flags + "\n" + text) + ".so";
        program.cubin = read_file(library);
        if (program.cubin.empty()) {
            std::vector<std::string> second = common;
            for (const char* argument :
                 {"-O2", "-march=native", "-fPIC", "-shared", "-w", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-math-errno",
                  "-fno-trapping-math", "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fmax-errors=50"})
                second.push_back(argument);
            second.push_back(options.contract ? "-ffp-contract=fast" : "-ffp-contract=off");
            second.push_back("-I" + folder);
            for (const char* argument : {"-x", "c++", "-o"}) second.push_back(argument);
            second.push_back(built);
            second.push_back(preprocessed);
            if (!write_file(preprocessed, text)) {
                program.log = "nvrtc: error: cannot write to " + kept + "\n";
            } else if (!run_compiler(second, messages)) {
                result = compilation;
            } else if (rename(built.c_str(), library.c_str()) == 0) {
                program.cubin = read_file(library);
            }
        }
        if (!program.cubin.empty()) {
            program.ptx = "// emulated: " + library + "\n";
            result = success;
        }
    }
    if (result == compilation) program.log = read_file(messages);
    for (const std::string& file : {source, preprocessed, messages, built}) unlink(file.c_str());
    remove_headers(program, headers);
    return result;
}

}  // namespace

EMULATOR_API const char* nvrtcGetErrorString(int result) {
    switch (result) {
        case success: return "NVRTC_SUCCESS";
        case out_of_memory: return "NVRTC_ERROR_OUT_OF_MEMORY";
        case program_creation_failure: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
        case invalid_input: return "NVRTC_ERROR_INVALID_INPUT";
        case invalid_program: return "NVRTC_ERROR_INVALID_PROGRAM";
        case invalid_option: return "NVRTC_ERROR_INVALID_OPTION";
        case compilation: return "NVRTC_ERROR_COMPILATION";
        case builtin_operation_failure: return "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE";
        case internal_error: return "NVRTC_ERROR_INTERNAL_ERROR";
    }
    return "NVRTC_ERROR unknown";
}

EMULATOR_API int nvrtcVersion(int* major, int* minor) {
    *major = version_major;
    *minor = version_minor;
    return success;
}

static const int architectures[] = {75, 80, 90, 100};

EMULATOR_API int nvrtcGetNumSupportedArchs(int* count) {
    *count = sizeof architectures / sizeof architectures[0];
    return success;
}

EMULATOR_API int nvrtcGetSupportedArchs(int* numbers) {
    memcpy(numbers, architectures, sizeof architectures);
    return success;
}

EMULATOR_API int nvrtcCreateProgram(Program** program, const char* source, const char* name, int header_count,
                                    const char* const* headers, const char* const* include_names) {
    if (program == nullptr || source == nullptr || header_count < 0) return invalid_input;
    if (header_count > 0 && (headers == nullptr || include_names == nullptr)) return invalid_input;
    *program = new Program{source, name != nullptr ? name : "", "", "", "", {}};
    for (int i = 0; i < header_count; ++i) (*program)->headers[include_names[i]] = headers[i];
    return success;
}

EMULATOR_API int nvrtcDestroyProgram(Program** program) {
    if (program == nullptr || *program == nullptr) return invalid_program;
    delete *program;
    *program = nullptr;
    return success;
}

EMULATOR_API int nvrtcCompileProgram(Program* program, int count, const char* const* texts) {
    if (program == nullptr) return invalid_program;
    program->log.clear();
    program->cubin.clear();
    program->ptx.clear();
    Options options;
    if (!read_options(count, texts, options, program->log)) return invalid_option;
    return compile(*program, options);
}

// Strings are returned with their terminating zero.
EMULATOR_API int nvrtcGetProgramLogSize(Program* program, size_t* size) {
    if (program == nullptr) return invalid_program;
    *size = program->log.size() + 1;
    return success;
}

EMULATOR_API int nvrtcGetProgramLog(Program* program, char* log) {
    if (program == nullptr) return invalid_program;
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return success;
}

EMULATOR_API int nvrtcGetCUBINSize(Program* program, size_t* size) {
    if (program == nullptr || program->cubin.empty()) return invalid_program;
    *size = program->cubin.size();
    return success;
}

EMULATOR_API int nvrtcGetCUBIN(Program* program, char* cubin) {
    if (program == nullptr || program->cubin.empty()) return invalid_program;
    memcpy(cubin, program->cubin.data(), program->cubin.size());
    return success;
}

EMULATOR_API int nvrtcGetPTXSize(Program* program, size_t* size) {
    if (program == nullptr || program->ptx.empty()) return invalid_program;
    *size = program->ptx.size() + 1;
    return success;
}

EMULATOR_API int nvrtcGetPTX(Program* program, char* ptx) {
    if (program == nullptr || program->ptx.empty()) return invalid_program;
    memcpy(ptx, program->ptx.c_str(), program->ptx.size() + 1);
    return success;
}
