// A guest without an operating system, whose every page is known in advance: for tests that must say which page is wrong.
// The README describes the command line, the lines on COM1 and the contents of a page.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    page_bytes = 4096,
    page_words = page_bytes / 4,
    pages_per_mebibyte = 256,
    ticks_per_second = 100,
    corrupt_lines_max = 20,
    line_bytes_max = 200,
    ram_end_max = 0x80000000,  // addresses stay clear of the device windows below 4 GiB
};

// --- The machine ---------------------------------------------------------------------------------------------------

static inline void port_write(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint8_t port_read(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

enum { com1 = 0x3f8, com1_line_status = com1 + 5, transmitter_empty = 0x20 };

static void serial_start(void) {
    port_write(com1 + 1, 0);     // no interrupts
    port_write(com1 + 3, 0x80);  // the divisor is visible
    port_write(com1 + 0, 1);     // 115200 baud
    port_write(com1 + 1, 0);
    port_write(com1 + 3, 3);  // eight bits, no parity, one stop bit
    port_write(com1 + 2, 7);  // FIFOs on and empty
}

static void print_character(char character) {
    while (!(port_read(com1_line_status) & transmitter_empty)) {
    }
    port_write(com1, (uint8_t)character);
}

static void print(const char *text) {
    while (*text != 0) print_character(*text++);
}

static void print_number(uint32_t value) {
    char digits[11], *digit = digits + sizeof digits - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    print(digit);
}

static void print_field(const char *name, uint32_t value) {
    print_character(' ');
    print(name);
    print_character('=');
    print_number(value);
}

volatile uint32_t ticks;  // counted by timer_entry
extern void timer_entry(void);

static struct {
    uint16_t offset_low, selector, type, offset_high;
} __attribute__((packed)) interrupt_gates[256];

static void timer_start(void) {
    uint32_t handler = (uint32_t)(uintptr_t)timer_entry;
    interrupt_gates[32].offset_low = (uint16_t)handler;
    interrupt_gates[32].selector = 8;
    interrupt_gates[32].type = 0x8e00;  // present, 32-bit interrupt gate
    interrupt_gates[32].offset_high = (uint16_t)(handler >> 16);
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table = {sizeof interrupt_gates - 1, (uint32_t)(uintptr_t)interrupt_gates};
    __asm__ volatile("lidt %0" : : "m"(table));

    static const uint8_t controllers[][2] = {
        {0x20, 0x11}, {0xa0, 0x11},  // start over, in cascade
        {0x21, 32},   {0xa1, 40},    // vectors
        {0x21, 4},    {0xa1, 2},     // the second is on line 2 of the first
        {0x21, 1},    {0xa1, 1},     // 8086 mode
        {0x21, 0xfe}, {0xa1, 0xff},  // everything masked but the timer
    };
    for (size_t step = 0; step < sizeof controllers / sizeof *controllers; step++) {
        port_write(controllers[step][0], controllers[step][1]);
    }
    const uint16_t divisor = 1193182 / ticks_per_second;
    port_write(0x43, 0x34);  // counter 0, both bytes, rate generator
    port_write(0x40, divisor & 0xff);
    port_write(0x40, divisor >> 8);
}

// Interrupts are on in these two only; timer_entry comes back with them off.
static void wait_for_tick(void) { __asm__ volatile("sti; hlt; cli" : : : "eax", "cc", "memory"); }
static void take_tick(void) { __asm__ volatile("sti; nop; cli" : : : "eax", "cc", "memory"); }

// --- What the loader says ------------------------------------------------------------------------------------------

// Xen's public/arch-x86/hvm/start_info.h; 64-bit addresses whose upper half is zero here.
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};
struct memory_range {
    uint64_t start, length;
    uint32_t type, reserved;
};
enum { start_info_magic = 0x336ec578, memory_range_ram = 1 };

enum mode { mode_fast, mode_rate, mode_idle };
static const char *const mode_names[] = {"fast", "rate", "idle"};

static struct {
    uint32_t seed, start_mebibyte, length_mebibytes, rate_mebibytes, zero_every, report_pages;
    uint32_t words;  // of each page that are written and checked: fewer make a page cheap where a processor is emulated slowly
    enum mode mode;
    uint32_t disk_blocks, disk_set_blocks, disk_rate;  // of 4 KiB; written a second
    bool fill, check;
} options = {.seed = 1, .rate_mebibytes = 16, .disk_rate = 10, .report_pages = 4096, .words = page_words, .mode = mode_fast};

static bool starts_with(const char *text, const char *prefix) {
    while (*prefix != 0) {
        if (*text++ != *prefix++) return false;
    }
    return true;
}

static bool read_number(const char *word, const char *name, uint32_t *value) {
    if (!starts_with(word, name)) return false;
    while (*name != 0) word++, name++;
    uint32_t number = 0;
    while (*word >= '0' && *word <= '9') number = number * 10 + (uint32_t)(*word++ - '0');
    *value = number;
    return true;
}

static void read_options(const char *word) {
    uint32_t flag;
    while (*word != 0) {
        if (read_number(word, "fill=", &flag)) options.fill = flag != 0;
        if (read_number(word, "check=", &flag)) options.check = flag != 0;
        read_number(word, "seed=", &options.seed);
        read_number(word, "start=", &options.start_mebibyte);
        read_number(word, "len=", &options.length_mebibytes);
        read_number(word, "rate=", &options.rate_mebibytes);
        read_number(word, "zero=", &options.zero_every);
        read_number(word, "report=", &options.report_pages);
        read_number(word, "words=", &options.words);
        read_number(word, "disk=", &options.disk_blocks);
        read_number(word, "diskset=", &options.disk_set_blocks);
        read_number(word, "diskrate=", &options.disk_rate);
        for (enum mode mode = mode_fast; mode <= mode_idle; mode++) {
            if (starts_with(word, "mode=") && starts_with(word + 5, mode_names[mode])) options.mode = mode;
        }
        while (*word != 0 && *word != ' ') word++;
        while (*word == ' ') word++;
    }
    if (options.words == 0 || options.words > page_words) options.words = page_words;
}

// --- Pages ---------------------------------------------------------------------------------------------------------

// Page numbers are those of guest-physical memory. The generation of a page counts the times it was written; 0 is a page
// of zeros that was never written.
static uint32_t *generations;  // [page]: what a page must hold, kept outside the pages
static uint32_t first_page, end_page;  // everything that may be written
static uint32_t set_first, set_pages;  // the working set, a part of it

static uint32_t mix(uint32_t value) {  // the finaliser of MurmurHash3
    value = (value ^ (value >> 16)) * 0x85ebca6b;
    value = (value ^ (value >> 13)) * 0xc2b2ae35;
    return value ^ (value >> 16);
}

static uint32_t stream_start(uint32_t page, uint32_t generation) {
    uint32_t state = mix(options.seed + mix(page + mix(generation)));
    return state != 0 ? state : 1;  // xorshift stays at zero
}

static inline uint32_t stream_next(uint32_t state) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^ (state << 5);
}

static volatile uint32_t *words_of(uint32_t page) { return (volatile uint32_t *)(uintptr_t)(page * page_bytes); }

static void write_page(uint32_t page) {
    volatile uint32_t *words = words_of(page);
    uint32_t generation = ++generations[page], state = stream_start(page, generation);
    words[0] = generation;
    for (uint32_t word = 1; word < options.words; word++) words[word] = state = stream_next(state);
}

static uint32_t corrupt_pages;

static void check_page(uint32_t page) {
    volatile uint32_t *words = words_of(page);
    uint32_t generation = generations[page], state = stream_start(page, generation), expected = generation;
    for (uint32_t word = 0; word < options.words; word++) {
        if (words[word] != expected) {
            if (corrupt_pages++ < corrupt_lines_max) {
                print("PATTERN CORRUPT");
                print_field("page", page);
                print_field("word", word);
                print_field("generation", generation);
                print_field("header", words[0]);
                print_field("expected", expected);
                print_field("seen", words[word]);
                print("\n");
            }
            return;
        }
        if (generation != 0) expected = state = stream_next(state);
    }
}

static uint32_t sweeps;

static void sweep(void) {
    for (uint32_t page = first_page; page < end_page; page++) {
        check_page(page);
        take_tick();
    }
    print("PATTERN sweep");
    print_field("n", ++sweeps);
    print_field("pages", end_page - first_page);
    print_field("corrupt", corrupt_pages);
    print("\n");
}

// --- The disk: an ATA one on the first channel, driven by programmed I/O. A block is made as a page is ------------------

enum {
    ata = 0x1f0, ata_count = ata + 2, ata_address = ata + 3, ata_device = ata + 6, ata_command = ata + 7, ata_control = 0x3f6,
    ata_busy = 0x80, ata_fault = 0x20, ata_wants_data = 8, ata_error = 1,
    ata_read = 0x20, ata_write = 0x30,
    sector_bytes = 512,
    block_sectors = page_bytes / sector_bytes,
    disk_blocks_max = 8192,
    block_stream = 0x80000000,  // blocks are numbered after all pages
};

static uint32_t disk_generations[disk_blocks_max], disk_writes, disk_swept;
static uint32_t block_words[page_words];

static void disk_fail(const char *what, uint32_t block) {
    print("PATTERN FAILED disk ");
    print(what);
    print_field("block", block);
    print("\n");
    options.disk_blocks = 0;
}

static bool disk_wait(uint8_t wanted) {
    uint8_t status;
    do {
        status = port_read(ata_command);
    } while ((status & ata_busy) != 0 || ((status & (ata_error | ata_fault)) == 0 && (status & wanted) != wanted));
    return (status & (ata_error | ata_fault)) == 0;
}

static bool disk_transfer(uint32_t block, uint8_t command) {
    uint32_t address = block * block_sectors;
    port_write(ata_device, (uint8_t)(0xe0 | address >> 24));  // the first device, by block address
    port_write(ata_count, block_sectors);
    for (int byte = 0; byte < 3; byte++) port_write((uint16_t)(ata_address + byte), (uint8_t)(address >> (8 * byte)));
    port_write(ata_command, command);
    uint32_t *words = block_words;
    for (int sector = 0; sector < block_sectors; sector++) {
        if (!disk_wait(ata_wants_data)) return false;
        uint32_t count = sector_bytes / 2;
        if (command == ata_write) {
            __asm__ volatile("rep outsw" : "+S"(words), "+c"(count) : "d"((uint16_t)ata) : "memory");
        } else {
            __asm__ volatile("rep insw" : "+D"(words), "+c"(count) : "d"((uint16_t)ata) : "memory");
        }
    }
    return disk_wait(0);
}

static void disk_write(uint32_t block) {
    uint32_t generation = disk_generations[block] + 1, state = stream_start(block_stream + block, generation);
    block_words[0] = generation;
    for (uint32_t word = 1; word < page_words; word++) block_words[word] = state = stream_next(state);
    if (!disk_transfer(block, ata_write)) return disk_fail("write", block);
    disk_generations[block] = generation;
}

static void disk_check(uint32_t block) {
    uint32_t generation = disk_generations[block], state = stream_start(block_stream + block, generation), expected = generation;
    if (!disk_transfer(block, ata_read)) return disk_fail("read", block);
    for (uint32_t word = 0; word < page_words; word++) {
        if (block_words[word] != expected) {
            if (corrupt_pages++ < corrupt_lines_max) {
                print("PATTERN CORRUPT");
                print_field("block", block);
                print_field("word", word);
                print_field("generation", generation);
                print_field("header", block_words[0]);
                print("\n");
            }
            return;
        }
        expected = state = stream_next(state);
    }
}

static void disk_start(void) {
    if (options.disk_blocks == 0) return;
    if (options.disk_blocks > disk_blocks_max) options.disk_blocks = disk_blocks_max;
    if (options.disk_set_blocks == 0 || options.disk_set_blocks > options.disk_blocks) options.disk_set_blocks = options.disk_blocks;
    port_write(ata_control, 2);  // no interrupts
    uint32_t blocks = options.disk_blocks;
    for (uint32_t block = 0; block < blocks && options.disk_blocks != 0; block++) disk_write(block);
    print("PATTERN disk filled");
    print_field("blocks", options.disk_blocks);
    print("\n");
}

// One block is written in no order that helps, and one is read in turn.
static void disk_turn(void) {
    uint32_t block = mix(options.seed + mix(++disk_writes)) % options.disk_set_blocks;
    disk_check(block);
    if (options.disk_blocks != 0) disk_write(block);
    if (options.disk_blocks != 0) disk_check(disk_swept++ % options.disk_blocks);
}

// --- The order of writing: every page of the working set once a round, by a full-period generator modulo a power of two --

static uint32_t order_mask, order_state, round_position;
static uint32_t round_number = 1, writes;

static void order_start(void) {
    for (order_mask = 1; order_mask < set_pages; order_mask <<= 1) {
    }
    order_mask--;
    order_state = mix(options.seed) & order_mask;
}

static void write_next(void) {
    do {
        // Hull and Dobell: full period for an odd increment and a multiplier of the form 4k + 1.
        order_state = (order_state * 1664525 + 1013904223) & order_mask;
    } while (order_state >= set_pages);  // at most every second one is skipped, since the modulus is the next power of two
    uint32_t page = set_first + order_state;
    if (options.check) check_page(page);
    write_page(page);
    writes++;
    if (++round_position == set_pages) {
        round_position = 0;
        round_number++;
        if (options.check) sweep();
    }
}

static void progress(void) {
    print("PATTERN");
    print_field("round", round_number);
    print_field("position", round_position);
    print_field("writes", writes);
    print_field("ticks", ticks);
    if (options.disk_set_blocks != 0) {
        print_field("disk_writes", disk_writes);
        print_field("disk_swept", disk_swept);
    }
    print_field("corrupt", corrupt_pages);
    print("\n");
}

static void write_counted(void) {
    write_next();
    take_tick();
    if (options.report_pages != 0 && writes % options.report_pages == 0) progress();
}

static _Noreturn void write_fast(void) {
    for (;;) write_counted();
}

static _Noreturn void write_at_rate(void) {
    // Pages owed, in hundredths, so that a rate below a page a tick is kept too. A tick that was missed (the machine was
    // stopped, or is too slow for the rate) is not made up for.
    uint32_t owed = 0, owed_blocks = 0, seen = ticks;
    for (;;) {
        while (ticks == seen) wait_for_tick();
        seen = ticks;
        owed += options.rate_mebibytes * pages_per_mebibyte;
        for (; owed >= ticks_per_second; owed -= ticks_per_second) write_counted();
        owed_blocks += options.disk_rate;
        for (; owed_blocks >= ticks_per_second; owed_blocks -= ticks_per_second) {
            if (options.disk_blocks != 0) disk_turn();
        }
    }
}

static _Noreturn void idle(void) {
    for (uint32_t seen = ticks;;) {
        while (ticks - seen < ticks_per_second) wait_for_tick();
        seen = ticks;
        if (options.check) sweep();
        progress();
    }
}

// --- Start ---------------------------------------------------------------------------------------------------------

extern char image_end[];

static uint32_t ram_end(const struct start_info *info) {
    const struct memory_range *ranges = (const struct memory_range *)(uintptr_t)info->memory_map;
    const uint32_t image = (uint32_t)(uintptr_t)image_end;
    for (uint32_t index = 0; index < info->memory_map_entries; index++) {
        uint64_t end = ranges[index].start + ranges[index].length;
        if (ranges[index].type != memory_range_ram || ranges[index].start > image || end <= image) continue;
        return end < ram_end_max ? (uint32_t)end : (uint32_t)ram_end_max;
    }
    return 0;
}

static void lay_out(uint32_t end) {
    uint32_t table = ((uint32_t)(uintptr_t)image_end + page_bytes - 1) / page_bytes;
    end_page = end / page_bytes;
    generations = (uint32_t *)(uintptr_t)(table * page_bytes);
    first_page = table + (end_page * 4 + page_bytes - 1) / page_bytes;
    for (uint32_t page = 0; page < end_page; page++) generations[page] = 0;

    set_first = options.start_mebibyte * pages_per_mebibyte;
    if (set_first < first_page) set_first = first_page;
    if (set_first >= end_page) set_first = end_page - 1;
    set_pages = options.length_mebibytes * pages_per_mebibyte;
    if (set_pages == 0 || set_pages > end_page - set_first) set_pages = end_page - set_first;
}

static void fill(void) {
    uint32_t zero_pages = 0;
    for (uint32_t page = first_page; page < end_page; page++) {
        bool in_set = page - set_first < set_pages;
        if (in_set || (options.fill && !(options.zero_every != 0 && page % options.zero_every == 0))) {
            write_page(page);
        } else {
            // Firmware and loader leave things behind.
            volatile uint32_t *words = words_of(page);
            for (uint32_t word = 0; word < options.words; word++) words[word] = 0;
            zero_pages++;
        }
    }
    print("PATTERN filled");
    print_field("pages", end_page - first_page - zero_pages);
    print_field("zero", zero_pages);
    print("\n");
}

void main(const struct start_info *info) {
    serial_start();
    if (info->magic != start_info_magic || info->version == 0) {
        print("PATTERN FAILED the loader gave no PVH start info with a memory map\n");
        return;
    }
    // Both the map and the command line lie in memory that is about to be filled: read them first.
    if (info->command_line != 0) read_options((const char *)(uintptr_t)info->command_line);
    uint32_t end = ram_end(info);
    if (end == 0) {
        print("PATTERN FAILED no RAM around the image in the memory map\n");
        return;
    }
    lay_out(end);
    print("PATTERN up");
    print_field("seed", options.seed);
    print_field("first", first_page);
    print_field("end", end_page);
    print_field("set_first", set_first);
    print_field("set_pages", set_pages);
    print(" mode=");
    print(mode_names[options.mode]);
    print("\n");
    fill();
    disk_start();
    order_start();
    timer_start();
    switch (options.mode) {
        case mode_fast: write_fast();
        case mode_rate: write_at_rate();
        case mode_idle: idle();
    }
}
