// Package image says what program an image name stands for on this machine. No image
// is fetched: a name means a command that the user gave, a folder in the OCI layout
// that he gave, or one of the samples built in (samples.go).
//
//	hello=./server --port 80        a command; runs on this machine's own root file system
//	hello:1.0=oci:images/hello      a folder: its layers, entry point, environment and user
package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// An Image is what a name stands for.
type Image struct {
	ID         string   // changes with the content
	Entrypoint []string // a manifest's command replaces it, and Args
	Args       []string // a manifest's args replace them
	Env        []string // NAME=VALUE
	Dir        string   // working directory
	Root       string   // root file system; "" is this machine's own
	UID, GID   int      // -1: none given
}

// An UnknownError is a name that stands for nothing.
type UnknownError struct{ Image string }

// Error names the image.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("image %q is not known here: no image is fetched; say what it stands for: %s", e.Image, e.Hint())
}

// Hint is the way out.
func (e *UnknownError) Hint() string {
	return fmt.Sprintf("lateen up --image %s=COMMAND (or =oci:FOLDER)", e.Image)
}

// Options are the settings of a Catalog.
type Options struct {
	Given map[string]string // by image name: a command, or oci:FOLDER
	Bin   string            // where our own programs are
	Dir   string            // where unpacked images are kept
}

// A Catalog resolves names. Safe for concurrent use.
type Catalog struct {
	o     Options
	given map[string]string // by name without registry and tag, and as it was given

	mu       sync.Mutex
	unpacked map[string]*unpacking // by folder
}

// An unpacking happens once.
type unpacking struct {
	once  sync.Once
	image Image
	err   error
}

// New returns a catalog. It fails when a given command cannot be read.
func New(o Options) (*Catalog, error) {
	c := &Catalog{o: o, given: map[string]string{}, unpacked: map[string]*unpacking{}}
	for name, command := range o.Given {
		if words, err := Words(command); err != nil || len(words) == 0 {
			return nil, fmt.Errorf("image %s=%s: the command cannot be read: %w", name, command, errors.Join(err, empty(words)))
		}
		c.given[name] = command
	}
	return c, nil
}

func empty(words []string) error {
	if len(words) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

// Resolve says what a name stands for. The error is an *UnknownError, or says what is wrong
// with the folder.
func (c *Catalog) Resolve(ctx context.Context, name string) (Image, error) {
	if command, ok := c.find(name); ok {
		if folder, ok := strings.CutPrefix(command, "oci:"); ok {
			return c.layout(ctx, folder)
		}
		return c.command(name, command)
	}
	return c.sample(name)
}

// find looks a name up as it is written, then without tag, then without registry.
func (c *Catalog) find(name string) (string, bool) {
	for _, n := range []string{name, untagged(name), repository(name), lastPart(name)} {
		if command, ok := c.given[n]; ok {
			return command, true
		}
	}
	for given, command := range c.given {
		if given == untagged(given) && repository(given) == repository(name) {
			return command, true
		}
	}
	return "", false
}

// untagged is a name without tag and digest.
func untagged(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// repository is a name without registry, tag and digest: istio/proxyv2.
func repository(name string) string {
	name = untagged(name)
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	return strings.TrimPrefix(name, "library/")
}

func lastPart(name string) string {
	name = untagged(name)
	return name[strings.LastIndexByte(name, '/')+1:]
}

// command is a given one. A program with a path is found from the folder where the mesh was started.
func (c *Catalog) command(name, command string) (Image, error) {
	words, err := Words(command)
	if err != nil {
		return Image{}, err
	}
	if strings.Contains(words[0], "/") {
		if words[0], err = filepath.Abs(words[0]); err != nil {
			return Image{}, err
		}
		if _, err := exec.LookPath(words[0]); err != nil {
			return Image{}, fmt.Errorf("image %s: %w", name, err)
		}
	}
	return Image{ID: "command:" + command, Entrypoint: words, UID: -1, GID: -1}, nil
}

// layout is a folder's, unpacked by the first who asks.
func (c *Catalog) layout(ctx context.Context, folder string) (Image, error) {
	c.mu.Lock()
	u := c.unpacked[folder]
	if u == nil {
		u = &unpacking{}
		c.unpacked[folder] = u
	}
	c.mu.Unlock()
	u.once.Do(func() { u.image, u.err = Unpack(ctx, folder, c.o.Dir) })
	if u.err != nil {
		c.mu.Lock() // it may be mended until the next try
		if c.unpacked[folder] == u {
			delete(c.unpacked, folder)
		}
		c.mu.Unlock()
	}
	return u.image, u.err
}

// user is a configuration's "user", "uid" or "uid:gid", looked up in the image's own files.
func user(root, text string) (uid, gid int, err error) {
	if text == "" {
		return -1, -1, nil
	}
	name, group, _ := strings.Cut(text, ":")
	uid, gid = -1, -1
	if uid, err = strconv.Atoi(name); err != nil {
		if uid, gid, err = entry(root, "etc/passwd", name, 3); err != nil {
			return 0, 0, err
		}
	}
	if group == "" {
		return uid, gid, nil
	}
	if gid, err = strconv.Atoi(group); err != nil {
		gid, _, err = entry(root, "etc/group", group, 2)
	}
	return uid, gid, err
}

// entry finds a name in passwd or group, and returns its third field and the one at index.
func entry(root, file, name string, index int) (id, other int, err error) {
	in, err := os.OpenRoot(root)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()
	text, err := in.ReadFile(file)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q of the image: %w", name, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(fields) <= max(2, index) || fields[0] != name {
			continue
		}
		id, err = strconv.Atoi(fields[2])
		other, _ = strconv.Atoi(fields[index])
		return id, other, err
	}
	return 0, 0, fmt.Errorf("the image's %s has no %q", file, name)
}
