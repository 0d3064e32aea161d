package server

import (
	"slices"
	"strings"
	"testing"
)

func TestMappings(t *testing.T) {
	const smaps = `00400000-02f89000 r-xp 00000000 fe:00 10466127                           /bin/program
Size:              44580 kB
Rss:               20132 kB
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

func TestCheckListen(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.0.0.1:6443": true, "127.3.2.1:80": true, "[::1]:0": true, "localhost:0": true,
		"0.0.0.0:0": false, ":6443": false, "192.0.2.1:6443": false, "127.0.0.1": false, "example.test:1": false,
	} {
		if err := checkListen(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
