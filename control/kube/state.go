package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lateen-mesh/lateen/control/config"
)

// A stateFile keeps what is in force for the next start: a line that says whose state it
// is, a line for each object, and a line with the checksum of all before. It is replaced
// whole. All methods do nothing without a directory.
type stateFile struct{ directory, server string }

const stateName = "kubernetes.state"

// Bounds of what is read back, and how long changes are gathered before they are saved.
const (
	maxLine   = 16 << 20
	maxState  = 1 << 30
	saveAfter = 2 * time.Second
)

type stateHead struct{ Format, Server string }

type stateLine struct {
	UID    types.UID
	Object json.RawMessage
}

type stateEnd struct{ SHA256 string }

const stateFormat = "lateen kubernetes state 1"

// A savedObject is an object of the last run.
type savedObject struct {
	uid    types.UID
	config *config.Config
}

func (f stateFile) path() string { return filepath.Join(f.directory, stateName) }

func (f stateFile) open() error {
	if f.directory == "" {
		return nil
	}
	if err := os.MkdirAll(f.directory, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// read gives the objects of the last run on the same API; none where there was none. A
// file that is not whole is not used.
func (f stateFile) read() ([]savedObject, error) {
	if f.directory == "" {
		return nil, nil
	}
	file, err := os.Open(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	objects, err := f.decode(io.LimitReader(file, maxState))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path(), err)
	}
	return objects, nil
}

func (f stateFile) decode(r io.Reader) (objects []savedObject, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	sum, number, last := sha256.New(), 0, []byte(nil)
	for lines.Scan() {
		if last != nil { // the line before was not the last
			number++
			o, err := f.line(number, last)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
			if o != nil {
				objects = append(objects, *o)
			}
			sum.Write(append(last, '\n'))
		}
		last = bytes.Clone(lines.Bytes())
	}
	var end stateEnd
	switch err := lines.Err(); {
	case err != nil:
		return nil, err
	case json.Unmarshal(last, &end) != nil || end.SHA256 != hex.EncodeToString(sum.Sum(nil)):
		return nil, errors.New("is not whole, or was changed")
	}
	return objects, nil
}

// line reads the first line, which has no object, or another.
func (f stateFile) line(number int, text []byte) (*savedObject, error) {
	if number == 1 {
		var head stateHead
		if err := json.Unmarshal(text, &head); err != nil || head.Format != stateFormat {
			return nil, errors.New("is of another format")
		}
		if head.Server != f.server {
			return nil, fmt.Errorf("is of the API %s", head.Server)
		}
		return nil, nil
	}
	var l stateLine
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	decoded, _ := config.DecodeYAML("", l.Object)
	if len(decoded) != 1 {
		return nil, nil // this version reads it no more
	}
	decoded[0].Source = config.Source{}
	return &savedObject{uid: l.UID, config: decoded[0]}, nil
}

// write replaces the file so that a crash leaves the old or the new one.
func (f stateFile) write(objects []savedObject) error {
	tmp, err := os.CreateTemp(f.directory, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = f.encode(tmp, objects)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.path())
}

func (f stateFile) encode(to io.Writer, objects []savedObject) error {
	buffered := bufio.NewWriter(to)
	sum := sha256.New()
	if err := putLine(buffered, sum, stateHead{stateFormat, f.server}); err != nil {
		return err
	}
	for _, o := range objects {
		text, err := config.Encode(o.config)
		if err != nil {
			return err
		}
		if err := putLine(buffered, sum, stateLine{o.uid, text}); err != nil {
			return err
		}
	}
	if err := putLine(buffered, sum, stateEnd{hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return err
	}
	return buffered.Flush()
}

func putLine(to io.Writer, sum hash.Hash, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	sum.Write(text)
	_, err = to.Write(text)
	return err
}

// save keeps the file up to date, a moment after changes and when the source ends.
func (s *Source) save(ctx context.Context) {
	if s.state.directory == "" {
		return
	}
	for {
		select {
		case <-s.dirty:
		case <-ctx.Done():
			return
		}
		ended := !sleep(ctx, saveAfter)
		if err := s.state.write(s.inForce()); err != nil {
			s.log.Warn("state cannot be saved for the next start", "error", err)
		}
		if ended {
			return
		}
	}
}

// inForce are the objects to save.
func (s *Source) inForce() []savedObject {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []savedObject
	for _, kind := range config.Kinds() {
		for _, e := range s.shelves[kind].objects {
			if e.good != nil && !e.good.Guard {
				all = append(all, savedObject{e.uid, e.good})
			}
		}
	}
	return all
}
