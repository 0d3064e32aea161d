package dns

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxFile bounds what is read of a hosts file or resolv.conf, in bytes.
const maxFile = 1 << 20

// A changing file is read again when its time or size has changed.
type changing struct {
	mu      sync.Mutex
	modTime time.Time
	size    int64
}

// changed reads the file if it is another one than last time. The caller holds mu.
// A file that is not there is an empty one.
func (c *changing) changed(path string) (lines []string, yes bool) {
	info, err := os.Stat(path)
	if err != nil {
		yes = c.size != -1
		c.modTime, c.size = time.Time{}, -1
		return nil, yes
	}
	if info.ModTime().Equal(c.modTime) && info.Size() == c.size {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	c.modTime, c.size = info.ModTime(), info.Size()
	s := bufio.NewScanner(io.LimitReader(f, maxFile))
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		lines = append(lines, line)
	}
	return lines, true
}

// hostsFile is /etc/hosts.
type hostsFile struct {
	changing
	path  string
	names map[string][]netip.Addr
}

func (h *hostsFile) lookup(name string) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lines, ok := h.changed(h.path); ok {
		h.names = map[string][]netip.Addr{}
		for _, line := range lines {
			h.add(strings.Fields(line))
		}
	}
	return h.names[name]
}

func (h *hostsFile) add(fields []string) {
	if len(fields) < 2 {
		return
	}
	ip, err := netip.ParseAddr(fields[0])
	if err != nil {
		return
	}
	for _, name := range fields[1:] {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		h.names[name] = append(h.names[name], ip)
	}
}

// conf is what resolv.conf says.
type conf struct {
	servers []string
	search  []string
	ndots   int
}

type confFile struct {
	changing
	path string
	conf conf
}

func (c *confFile) load() conf {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lines, ok := c.changed(c.path); ok {
		c.conf = parseConf(lines)
	}
	return c.conf
}

func parseConf(lines []string) conf {
	c := conf{ndots: 1}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			if _, err := netip.ParseAddr(f[1]); err == nil && len(c.servers) < 3 {
				c.servers = append(c.servers, net.JoinHostPort(f[1], "53"))
			}
		case "domain", "search":
			c.search = f[1:]
		case "options":
			for _, o := range f[1:] {
				if v, ok := strings.CutPrefix(o, "ndots:"); ok {
					if n, err := strconv.Atoi(v); err == nil && n >= 0 {
						c.ndots = min(n, 15)
					}
				}
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []string{"127.0.0.1:53"}
	}
	return c
}
