package store

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// victimVariable makes the test binary a process that writes to the directory in it until it is
// killed.
const victimVariable = "LATEEN_STORE_VICTIM"

func victim(dir string) {
	s, _, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	start, _ := s.get("/pods/count")
	n := 0
	if start != nil {
		n, _ = strconv.Atoi(string(start.value))
	}
	for {
		n++
		if _, err := trySet(s, "/pods/count", strconv.Itoa(n)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// A server that is killed loses no write that it acknowledged, and frees its directory.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	last := 0
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 200 * (round + 1) {
			if !lines.Scan() {
				t.Fatal("the victim ended by itself")
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for acknowledged := true; acknowledged; acknowledged = lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				break // cut off
			}
			if n <= last {
				t.Fatalf("%d was written after %d: the last round was lost", n, last)
			}
			last = n
		}
		_ = cmd.Wait() // killed
	}
	s, problems, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	it, _ := s.get("/pods/count")
	if got, err := strconv.Atoi(string(it.value)); err != nil || got < last {
		t.Errorf("%s, but %d was acknowledged (%v)", it.value, last, problems)
	}
}

// smallDiskVariable names the directory that a child of TestFullDisk mounts its disk at.
const smallDiskVariable = "LATEEN_STORE_SMALL_DISK"

func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(smallDiskVariable); dir != "" {
		fillDisk(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), smallDiskVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("this machine permits no mount namespaces, so that no small disk can be had:", err)
	}
	if err != nil || !strings.Contains(string(out), "PASS: TestFullDisk") {
		t.Errorf("%v\n%s", err, out)
	}
}

// fillDisk runs on a disk of 9 MiB that nobody else sees.
func fillDisk(t *testing.T, disk string) {
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=9m")
	}
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "state")
	s := open(t, Options{Dir: dir})

	// 2 MiB of objects, then history, which a snapshot finds no room to get rid of.
	want := map[string]string{}
	value := strings.Repeat("x", 64<<10)
	for n := 0; ; n++ {
		key, v := fmt.Sprintf("/pods/%02d", n%32), fmt.Sprint(n, value)
		if _, err = trySet(s, key, v); err != nil {
			break
		}
		want[key] = v
	}
	if !strings.Contains(err.Error(), "no space left for objects: free space in "+dir) || statusCode(err) != 507 {
		t.Fatalf("%v", err)
	}
	if len(want) != 32 || !maps.Equal(contents(s.state), want) {
		t.Errorf("%d objects, want the %d that were acknowledged", len(contents(s.state)), len(want))
	}
	before := s.revision()
	if _, err := trySet(s, "/pods/00", value+value); statusCode(err) != 507 {
		t.Errorf("a second write: %v", err)
	}
	if s.revision() != before {
		t.Errorf("a refused write has revision %d", s.revision())
	}

	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if damage, err := scan(file, func(record) error { return nil }); len(damage) > 0 || err != nil {
		t.Errorf("the refused write left %v: %v", damage, err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		key := fmt.Sprintf("/pods/%02d", i%32)
		want[key] = fmt.Sprint("after ", i, value)
		set(t, s, key, want[key])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, Options{Dir: dir}); !maps.Equal(contents(s.state), want) {
		t.Error("other contents after a restart")
	}
}

func statusCode(err error) int32 {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return 0
	}
	return status.Status().Code
}

// What ends by itself is tried again when the disk was full.
func TestExpiryOnAFullDisk(t *testing.T) {
	s := &Store{options: Options{}.withDefaults(), state: newState(16)}
	w := newWriter(s, nil)
	w.commit([]*write{{key: "/events/a", value: []byte("1"), ttl: 1}})
	dir := t.TempDir()
	closed, err := os.Create(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close() // every write fails
	w.file = &logFile{dir: dir, file: closed}
	later := time.Now().Add(time.Minute)
	w.expire(later)
	if s.state.get("/events/a") == nil || !w.expiry.Equal(later.Add(retryDelay)) {
		t.Errorf("looks again at %v", w.expiry)
	}
	w.file = nil
	w.expire(later)
	if s.state.get("/events/a") != nil || len(w.ending) != 0 {
		t.Error("still there")
	}
	w.expiryTimer.Stop()
}
