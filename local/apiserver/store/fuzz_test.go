package store

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func sampleRecords() []record {
	end := time.Unix(2_000_000_000, 0)
	return []record{
		{kind: recordBase, version: formatVersion, item: item{rev: 7}},
		{kind: recordItem, item: item{rev: 5, key: "/pods/a", value: []byte("one")}},
		{kind: recordItem, item: item{rev: 7, key: "/pods/b", value: recordMagic, ttl: 3600, expires: end}},
		{kind: recordPut, item: item{rev: 8, key: "/pods/a", value: []byte("two")}},
		{kind: recordDelete, item: item{rev: 9, key: "/pods/b"}},
		{kind: recordPut, item: item{rev: 10, key: "/pods/c", value: []byte{}}},
	}
}

// What is written is what is read.
func TestRecords(t *testing.T) {
	for _, want := range sampleRecords() {
		b := appendRecord([]byte("before"), want)[len("before"):]
		got, n, err := parseRecord(append(b, "after"...))
		if err != nil || n != len(b) {
			t.Fatalf("%v: %d of %d bytes: %v", want, n, len(b), err)
		}
		if again := appendRecord(nil, got); !bytes.Equal(again, b) {
			t.Errorf("%x, want %x", again, b)
		}
	}
}

// Whatever is in a file, records and damage together are all of it, and each record is one that
// could have been written.
func FuzzScan(f *testing.F) {
	var file []byte
	for _, r := range sampleRecords() {
		file = appendRecord(file, r)
		f.Add(appendRecord(nil, r))
	}
	f.Add(file)
	f.Add(append(bytes.Clone(file[20:]), file[:len(file)-3]...))
	f.Add(bytes.Repeat(append(bytes.Clone(recordMagic), 0, 0, 16, 0), 50))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := int64(0)
		damage, err := scan(b, func(r record) error {
			read += int64(len(appendRecord(nil, r)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		for _, d := range damage {
			if d.offset < end || d.length <= 0 {
				t.Fatalf("damage %v", damage)
			}
			end = d.offset + d.length
			read += d.length
		}
		if read > int64(len(b)) || len(damage) == 0 && read != int64(len(b)) {
			t.Fatalf("%d bytes of %d, damage %v", read, len(b), damage)
		}
	})
}

// Whatever is in a file, a store opens, or says that the file is of another version; what it made
// of the file is sound.
func FuzzLoad(f *testing.F) {
	var file []byte
	for _, r := range sampleRecords() {
		file = appendRecord(file, r)
	}
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add(append(bytes.Clone(file), file...))
	f.Add(file[40:])
	f.Add(appendRecord(bytes.Clone(file), record{kind: recordPut, item: item{rev: maxRev, key: "/x"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		first := newState(4)
		l, _, err := load(dir, first)
		if err != nil {
			return
		}
		w := newWriter(&Store{options: Options{Dir: dir}.withDefaults(), state: first}, l)
		w.commit([]*write{{key: "/pods/new", value: []byte("x")}})
		if first.get("/pods/new") == nil {
			t.Fatal("nothing can be written")
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		w.expiryTimer.Stop()
		second := newState(4)
		l, problems, err := load(dir, second)
		if err != nil || len(problems) > 0 || second.rev != first.rev || !maps.Equal(contents(first), contents(second)) {
			t.Fatalf("%v at %d, then %v at %d: %v %v", contents(first), first.rev, contents(second), second.rev, problems, err)
		}
		l.file.Close()
	})
}
