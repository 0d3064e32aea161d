package xds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/fsnotify/fsnotify"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// A File is a management server that is none: a file with a DiscoveryResponse. It is read
// again whenever another one takes its place by a rename, which is how to replace a file
// at once. Its name's ending says how it is written: .json, .yaml, .yml, .pb; text of
// protobufs otherwise.
type File struct {
	Path string
	// Directory, if not "", is watched in place of the file's own: renames in it, as of the
	// links of a mounted ConfigMap, replace the file.
	Directory string
	// TypeURL is the type of the resources in it.
	TypeURL string
}

// FromPath is the File of a path_config_source, for resources of one type. It must be there.
func FromPath(c *corev3.PathConfigSource, typeURL string) (*File, error) {
	if _, err := os.Stat(c.GetPath()); err != nil {
		return nil, fmt.Errorf("paths must refer to an existing path in the system: '%s' does not exist", c.GetPath())
	}
	return &File{Path: c.GetPath(), Directory: c.GetWatchedDirectory().GetPath(), TypeURL: typeURL}, nil
}

// directory is what is watched.
func (f *File) directory() string {
	if f.Directory != "" {
		return f.Directory
	}
	return filepath.Dir(f.Path)
}

// replaces reports that an event may have put another file in place.
func (f *File) replaces(e fsnotify.Event) bool {
	return e.Has(fsnotify.Create) && (f.Directory != "" || filepath.Base(e.Name) == filepath.Base(f.Path))
}

// follow is connect for a file: it answers as a server would that has what is in it.
func (c *Client) follow(ctx context.Context, streams chan<- *stream) {
	s := &stream{in: make(chan proto.Message), out: make(chan proto.Message), gone: make(chan struct{}), greeted: true}
	select {
	case streams <- s:
	case <-ctx.Done():
		return
	}
	var events chan fsnotify.Event
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, err = watcher.Events, watcher.Add(c.opts.File.directory())
	}
	if err != nil {
		c.log.Warn("xds file cannot be watched, changes of it are not seen", "path", c.opts.File.Path, "error", err)
	}
	var asked []string
	var seen []byte
	began := false
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if began && c.opts.File.replaces(e) {
				seen = c.deliver(ctx, s, seen)
			}
		case m := <-s.out:
			names := m.(*discoveryv3.DiscoveryRequest).GetResourceNames()
			if !began || !slices.Equal(names, asked) {
				began, asked = true, names
				seen = c.deliver(ctx, s, nil)
			}
		}
	}
}

// deliver reads the file and hands over what is in it, unless it is as it was seen before,
// and returns the bytes. Meanwhile nothing else is sent.
func (c *Client) deliver(ctx context.Context, s *stream, seen []byte) []byte {
	data, err := c.opts.File.load()
	if err == nil && seen != nil && bytes.Equal(data, seen) {
		return seen
	}
	var r *discoveryv3.DiscoveryResponse
	if err == nil {
		r, err = c.opts.File.decode(data)
	}
	if err != nil {
		c.opts.Observe(c.opts.File.TypeURL, Rejected)
		c.log.Warn("xds file refused", "path", c.opts.File.Path, "error", err)
		return data
	}
	for {
		select {
		case s.in <- r:
			return data
		case <-s.out: // what was asked for is among what is delivered
		case <-ctx.Done():
			return data
		}
	}
}

// load reads the file.
func (f *File) load() ([]byte, error) {
	info, err := os.Stat(f.Path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxMessage {
		return nil, fmt.Errorf("larger than %d bytes", maxMessage)
	}
	return os.ReadFile(f.Path)
}

// decode reads the file's bytes.
func (f *File) decode(data []byte) (*discoveryv3.DiscoveryResponse, error) {
	var err error
	r := &discoveryv3.DiscoveryResponse{}
	switch filepath.Ext(f.Path) {
	case ".yaml", ".yml":
		var tree any
		if err = yaml.Unmarshal(data, &tree); err == nil {
			data, err = json.Marshal(tree)
		}
		if err != nil {
			return nil, err
		}
		err = protojson.Unmarshal(data, r)
	case ".json":
		err = protojson.Unmarshal(data, r)
	case ".pb":
		err = proto.Unmarshal(data, r)
	default:
		err = prototext.Unmarshal(data, r)
	}
	if err != nil {
		return nil, err
	}
	if r.TypeUrl == "" {
		r.TypeUrl = f.TypeURL
	}
	if r.TypeUrl != f.TypeURL {
		return nil, errors.New("type_url: " + r.TypeUrl + " where " + f.TypeURL + " is wanted")
	}
	return r, nil
}
