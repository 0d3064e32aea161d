package resident

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMappings(t *testing.T) {
	const smaps = `00400000-02f89000 r-xp 00000000 fe:00 10466127                           /bin/program
Size:              44580 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
05e91000-05f6c000 rw-p 05a91000 fe:00 10466127                           /bin/program
Anonymous:           876 kB
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
Anonymous:           132 kB
junk
zz-yy r-xp 0 0 0 /bin/program
Anonymous:             0 kB
`
	want := []mapping{
		{start: 0x400000, end: 0x2f89000, mode: "r-xp", file: "/bin/program", anonymous: "0"},
		{start: 0x5e91000, end: 0x5f6c000, mode: "rw-p", file: "/bin/program", anonymous: "876"},
	}
	if got := slices.Collect(mappings(strings.NewReader(smaps))); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// FuzzMappings: whatever the kernel writes, a range never ends before it begins.
func FuzzMappings(f *testing.F) {
	f.Add("00400000-02f89000 r-xp 00000000 fe:00 1 /bin/program\nAnonymous: 0 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		for m := range mappings(strings.NewReader(text)) {
			if m.end <= m.start {
				t.Errorf("%+v", m)
			}
		}
	})
}

// TestSettle: the process goes on as before with pages that were given back.
func TestSettle(t *testing.T) {
	settle()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("this kernel does not tell: %v", err)
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), program) {
		t.Errorf("the program %s is not among the mappings", program)
	}
}

func TestKeepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		Keep(ctx)
		if ctx.Err() == nil {
			t.Error("it ended before its context")
		}
	})
}
