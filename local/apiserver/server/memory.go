package server

import (
	"bufio"
	"context"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// collectAt is the growth in percent after which garbage is collected once the start
	// is over. Most of the heap are schemas then, and requests leave little. A start
	// with it takes half as much work again.
	collectAt = 50
	// restAfter is how often the process looks whether a burst of work is over, and
	// burst how much one allocates. One that lasts is not waited for after longest looks.
	restAfter = 2 * time.Second
	burst     = 16 << 20
	longest   = 15
)

// economize keeps the process small until ctx ends: after each burst of work it
// gives back what only the burst needed. A start is one.
func economize(ctx context.Context) {
	ticker := time.NewTicker(restAfter)
	defer ticker.Stop()
	for last, settled, looks := uint64(0), uint64(0), 0; ; looks++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := allocated()
		quiet := now-last < burst/4
		last = now
		if now-settled > burst && (quiet || looks >= longest) {
			if os.Getenv("GOGC") == "" { // else the user chose
				debug.SetGCPercent(collectAt)
			}
			settle()
			settled, looks = now, 0
		}
	}
}

// allocated returns how many bytes were allocated since the process began.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// settle gives back garbage, and the pages of the program that were touched once.
// Those stay in the kernel's cache and come back when they are touched again; kept
// mapped, they are half of what the process weighs.
func settle() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return // another kernel: nothing is lost but memory
	}
	defer maps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for m := range mappings(maps) {
		// Without a page of its own, all of a mapping can be read again from the file.
		if m.file == program && !strings.Contains(m.mode, "w") && m.anonymous == "0" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		}
	}
}

// A mapping is what /proc/PID/smaps says of one.
type mapping struct {
	start, end uintptr
	mode, file string
	anonymous  string // kilobytes that differ from the file
}

// mappings reads smaps: a line with the range, then lines of "Name: value".
func mappings(smaps io.Reader) iter.Seq[mapping] {
	return func(yield func(mapping) bool) {
		var m mapping
		for lines := bufio.NewScanner(smaps); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			switch {
			case len(fields) == 6 && !strings.HasSuffix(fields[0], ":"):
				from, to, _ := strings.Cut(fields[0], "-")
				start, _ := strconv.ParseUint(from, 16, 64)
				end, _ := strconv.ParseUint(to, 16, 64)
				m = mapping{start: uintptr(start), end: uintptr(end), mode: fields[1], file: fields[5]}
			case len(fields) == 3 && fields[0] == "Anonymous:" && m.end > m.start:
				m.anonymous = fields[1]
				if !yield(m) {
					return
				}
				m = mapping{} // a mapping without a name has no file to compare
			}
		}
	}
}
