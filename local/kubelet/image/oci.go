package image

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// maxDocument bounds index, manifest and configuration.
const maxDocument = 4 << 20

// maxNesting bounds indexes in indexes.
const maxNesting = 4

// The types of documents and layers, as OCI and as Docker write them.
var (
	indexTypes = []string{"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
	gzipTypes  = []string{"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"}
	tarTypes   = []string{"application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"}
)

// A descriptor refers to a blob.
type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *platform `json:"platform"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`
}

type configuration struct {
	Config struct {
		Entrypoint, Cmd, Env []string
		User, WorkingDir     string
	} `json:"config"`
}

// A layoutFolder is a folder in the OCI layout.
type layoutFolder struct{ dir string }

// Unpack reads an image of a folder in the OCI layout and unpacks it below dir, once:
// a later call finds it there. Errors name the folder.
func Unpack(ctx context.Context, folder, dir string) (Image, error) {
	image, err := layoutFolder{folder}.unpack(ctx, dir)
	if err != nil {
		return Image{}, fmt.Errorf("OCI layout %s: %w", folder, err)
	}
	return image, nil
}

func (l layoutFolder) unpack(ctx context.Context, dir string) (Image, error) {
	top, err := readLimited(filepath.Join(l.dir, "index.json"))
	if err != nil {
		return Image{}, err
	}
	m, digest, err := l.manifest(top, maxNesting)
	if err != nil {
		return Image{}, err
	}
	var c configuration
	if err := l.document(m.Config, &c); err != nil {
		return Image{}, fmt.Errorf("configuration: %w", err)
	}
	root := filepath.Join(dir, strings.ReplaceAll(digest, ":", "-"))
	if err := l.layers(ctx, m.Layers, root); err != nil {
		return Image{}, err
	}
	uid, gid, err := user(root, c.Config.User)
	return Image{ID: digest, Entrypoint: c.Config.Entrypoint, Args: c.Config.Cmd, Env: c.Config.Env, Dir: c.Config.WorkingDir,
		Root: root, UID: uid, GID: gid}, err
}

// manifest finds this machine's in an index.
func (l layoutFolder) manifest(text []byte, nesting int) (m manifest, digest string, err error) {
	var all index
	if err := json.Unmarshal(text, &all); err != nil {
		return m, "", fmt.Errorf("index: %w", err)
	}
	var chosen *descriptor
	for i, d := range all.Manifests {
		if p := d.Platform; p == nil || p.OS == "linux" && p.Architecture == runtime.GOARCH {
			chosen = &all.Manifests[i]
			break
		}
	}
	if chosen == nil {
		return m, "", fmt.Errorf("it has no image for linux/%s", runtime.GOARCH)
	}
	if slices.Contains(indexTypes, chosen.MediaType) {
		if nesting == 0 {
			return m, "", errors.New("its indexes are nested too deeply")
		}
		below, err := l.blob(*chosen)
		if err != nil {
			return m, "", err
		}
		return l.manifest(below, nesting-1)
	}
	if err := l.document(*chosen, &m); err != nil {
		return m, "", fmt.Errorf("manifest: %w", err)
	}
	return m, chosen.Digest, nil
}

func (l layoutFolder) document(d descriptor, into any) error {
	text, err := l.blob(d)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// blob is a small one.
func (l layoutFolder) blob(d descriptor) ([]byte, error) {
	path, sum, err := l.path(d)
	if err != nil {
		return nil, err
	}
	text, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("blob %s is damaged: its content has another digest", d.Digest)
	}
	return text, nil
}

func (l layoutFolder) path(d descriptor) (path, sum string, err error) {
	sum, ok := strings.CutPrefix(d.Digest, "sha256:")
	if _, err := hex.DecodeString(sum); !ok || err != nil || len(sum) != 2*sha256.Size {
		return "", "", fmt.Errorf("digest %q is not sha256", d.Digest)
	}
	return filepath.Join(l.dir, "blobs", "sha256", sum), sum, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(text) > maxDocument {
		err = fmt.Errorf("%s has more than %d bytes", path, maxDocument)
	}
	return text, err
}

// layers unpacks all into a folder that appears when it is complete.
func (l layoutFolder) layers(ctx context.Context, all []descriptor, root string) error {
	if _, err := os.Stat(root); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(root), ".unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	//nolint:gosec // the root of a container: its users other than root walk through it
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	t, err := openTree(part)
	if err != nil {
		return err
	}
	defer t.close()
	for _, d := range all {
		if err := l.layer(ctx, d, t); err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
	}
	err = os.Rename(part, root)
	if _, gone := os.Stat(root); err != nil && gone == nil {
		return nil // another one was faster
	}
	return err
}

func (l layoutFolder) layer(ctx context.Context, d descriptor, t *tree) error {
	path, sum, err := l.path(d)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	blob := io.TeeReader(f, hash)
	text := blob
	switch {
	case slices.Contains(gzipTypes, d.MediaType):
		unzipped, err := gzip.NewReader(blob)
		if err != nil {
			return err
		}
		text = unzipped
	case !slices.Contains(tarTypes, d.MediaType):
		return fmt.Errorf("its type %q is not supported: use tar or tar+gzip", d.MediaType)
	}
	if err := t.unpack(ctx, text); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil {
		return err
	}
	if hex.EncodeToString(hash.Sum(nil)) != sum {
		return errors.New("it is damaged: its content has another digest")
	}
	return nil
}
