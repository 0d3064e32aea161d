package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/wellknown"
)

// Bounds of a journal, in bytes.
const (
	maxJournal = 64 << 20 // of what counts
	slack      = 1 << 20  // of what does not, before the file is written anew
)

// A journal is a file of the resources that the proxy accepted, for the next start. It holds
// no private keys: secrets are left out.
//
// The file is a list of records: the length of the body, its CRC-32, and the body, which is a
// DeltaDiscoveryResponse with one resource, with the names of removed ones, or, as a sign that the
// type was answered, with nothing. The first record's system version is the node's id: what
// another node accepted does not count. What follows a broken record does not count either: a
// program was killed while it wrote.
type journal struct {
	path  string
	file  *os.File
	types map[string]map[string]place // by type and name
	size  int64                       // of the file
	live  int64                       // of its records that count
	node  string
}

// place is where the file has a record.
type place struct{ at, length int64 }

const recordHead = 8

var errJournalFull = fmt.Errorf("more than %d MiB", maxJournal>>20)

func openJournal(path, node string) (*journal, error) {
	j := &journal{path: path, node: node, types: map[string]map[string]place{}}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j.file = file
	if err := file.Chmod(0o600); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := j.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

// load reads the file. One of another node is begun anew.
func (j *journal) load() error {
	in := bufio.NewReader(j.file)
	first := true
	for {
		m, length, err := readRecord(in)
		if err != nil || first && m.GetSystemVersionInfo() != j.node {
			break
		}
		if !first {
			j.index(m, place{j.size, length})
		}
		first = false
		j.size += length
	}
	if err := j.file.Truncate(j.size); err != nil {
		return err
	}
	if first {
		return j.write(&discoverypb.DeltaDiscoveryResponse{SystemVersionInfo: j.node})
	}
	return nil
}

// index notes a record.
func (j *journal) index(m *discoverypb.DeltaDiscoveryResponse, p place) {
	names := j.types[m.GetTypeUrl()]
	if names == nil {
		names = map[string]place{}
		j.types[m.GetTypeUrl()] = names
	}
	for _, name := range m.GetRemovedResources() {
		j.live -= names[name].length
		delete(names, name)
	}
	for _, res := range m.GetResources() {
		j.live += p.length - names[res.GetName()].length
		names[res.GetName()] = p
	}
}

func (j *journal) empty() bool { return len(j.types) == 0 }

// knows reports whether the type was ever answered.
func (j *journal) knows(url string) bool { return j.types[url] != nil }

// add notes an accepted response.
func (j *journal) add(m *discoverypb.DeltaDiscoveryResponse) error {
	if m.GetTypeUrl() == wellknown.SecretType {
		return nil
	}
	all := []*discoverypb.DeltaDiscoveryResponse{}
	if len(m.GetRemovedResources()) > 0 || len(m.GetResources()) == 0 {
		all = append(all, &discoverypb.DeltaDiscoveryResponse{TypeUrl: m.GetTypeUrl(), RemovedResources: m.GetRemovedResources()})
	}
	for _, res := range m.GetResources() {
		all = append(all, &discoverypb.DeltaDiscoveryResponse{TypeUrl: m.GetTypeUrl(), Resources: []*discoverypb.Resource{res}})
	}
	if err := j.write(all...); err != nil {
		return err
	}
	if j.live > maxJournal {
		return errJournalFull
	}
	if j.size > 2*j.live+slack {
		return j.compact()
	}
	return nil
}

// remove forgets resources.
func (j *journal) remove(url string, names []string) error {
	if !j.knows(url) {
		return nil
	}
	return j.write(&discoverypb.DeltaDiscoveryResponse{TypeUrl: url, RemovedResources: names})
}

// retain forgets all resources of a type but some.
func (j *journal) retain(url string, some map[string]string) error {
	return j.forget(url, func(name string) bool {
		_, ok := some[name]
		return !ok
	})
}

// forget forgets the resources of a type that are unwanted.
func (j *journal) forget(url string, unwanted func(name string) bool) error {
	var gone []string
	for name := range j.types[url] {
		if unwanted(name) {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return j.remove(url, gone)
}

// write appends records, in one piece.
func (j *journal) write(all ...*discoverypb.DeltaDiscoveryResponse) error {
	var out bytes.Buffer
	for _, m := range all {
		at := out.Len()
		if err := appendRecord(&out, m); err != nil {
			return err
		}
		if m.GetTypeUrl() != "" {
			j.index(m, place{j.size + int64(at), int64(out.Len() - at)})
		}
	}
	if _, err := j.file.WriteAt(out.Bytes(), j.size); err != nil {
		return err
	}
	j.size += int64(out.Len())
	return nil
}

// read is what the journal has of a type, of the names that are wanted.
func (j *journal) read(url string, wanted func(string) bool) (*discoverypb.DeltaDiscoveryResponse, error) {
	all := &discoverypb.DeltaDiscoveryResponse{TypeUrl: url, SystemVersionInfo: "stored"}
	for name, p := range j.types[url] {
		if !wanted(name) {
			continue
		}
		m, _, err := readRecord(io.NewSectionReader(j.file, p.at, p.length))
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, url, err)
		}
		for _, res := range m.GetResources() {
			if res.GetName() == name {
				all.Resources = append(all.Resources, res)
			}
		}
	}
	return all, nil
}

// compact writes the file anew, without what does not count.
func (j *journal) compact() error {
	path := j.path + ".new"
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	next := &journal{path: j.path, file: file, node: j.node, types: map[string]map[string]place{}}
	err = next.write(&discoverypb.DeltaDiscoveryResponse{SystemVersionInfo: j.node})
	for url := range j.types {
		if err != nil {
			break
		}
		var m *discoverypb.DeltaDiscoveryResponse
		if m, err = j.read(url, func(string) bool { return true }); err != nil {
			break
		}
		all := []*discoverypb.DeltaDiscoveryResponse{{TypeUrl: url}}
		for _, res := range m.GetResources() {
			all = append(all, &discoverypb.DeltaDiscoveryResponse{TypeUrl: url, Resources: []*discoverypb.Resource{res}})
		}
		err = next.write(all...)
	}
	if err == nil {
		err = os.Rename(path, j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	old := j.file
	*j = *next
	return old.Close()
}

// discard removes the file.
func (j *journal) discard() error { return errors.Join(j.file.Close(), os.Remove(j.path)) }

func (j *journal) close() error {
	if err := j.file.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

func appendRecord(out *bytes.Buffer, m *discoverypb.DeltaDiscoveryResponse) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxJournal {
		return errJournalFull
	}
	var head [recordHead]byte
	binary.BigEndian.PutUint32(head[:4], uint32(len(body)))
	binary.BigEndian.PutUint32(head[4:], crc32.ChecksumIEEE(body))
	out.Write(head[:])
	out.Write(body)
	return nil
}

var errBroken = errors.New("broken record")

// readRecord reads one record and says how long it was.
func readRecord(in io.Reader) (*discoverypb.DeltaDiscoveryResponse, int64, error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, 0, err
	}
	length := int64(binary.BigEndian.Uint32(head[:4]))
	if length > maxJournal {
		return nil, 0, errBroken
	}
	var body bytes.Buffer // grows as bytes come: the length may be wrong
	if n, err := io.CopyN(&body, in, length); err != nil || n != length {
		return nil, 0, errBroken
	}
	if crc32.ChecksumIEEE(body.Bytes()) != binary.BigEndian.Uint32(head[4:]) {
		return nil, 0, errBroken
	}
	m := &discoverypb.DeltaDiscoveryResponse{}
	if err := proto.Unmarshal(body.Bytes(), m); err != nil {
		return nil, 0, errBroken
	}
	return m, recordHead + length, nil
}
