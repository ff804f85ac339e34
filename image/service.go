// Package image is the store of images: their names, configurations, manifests and layers, and the verbs that bring them in,
// change and remove them.
//
// An image is visible when one transaction has stored its record and names; before that its blobs and layers are made durable. What
// no record names is garbage: it is collected after each verb that may leave some, and by Open.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gantry/archive"
	"gantry/content"
	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/image/signature"
	"gantry/registry"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options is what a Service needs.
type Options struct {
	Root      string // data root; content/ lies beneath
	DB        *db.DB
	Events    *event.Bus // nil: nobody listens
	Snapshots snapshot.Snapshotter
	Registry  registry.Config
	Downloads int             // layers, and ranges of layers, fetched at once by all pulls; 0: 3
	Uploads   int             // layers sent at once per push; 0: 5
	Packing   archive.Packing // how a push compresses layers that are not compressed; zero: gzip
	Keep      bool            // blobs of layers stay as they came: no recipes are made
	Policy    string          // file that says which images may be used (containers-policy.json); empty: all
	Log       *slog.Logger    // nil: none
}

// Service is the store of images. Its methods may be called concurrently.
type Service struct {
	o       Options
	content *content.Store
	// Configure replaces these three.
	registry atomic.Pointer[registry.Client]
	streams  *registry.Streams
	uploads  atomic.Int64
	log      *slog.Logger

	transfers transfers
	suspects  sync.Map // digests of blobs that count as damaged: whether there is a record of that
	own       sync.Map // keys of snapshots that a verb uses: true; or could not remove: false

	mu      sync.RWMutex // guards images and names, and keeps them equal to the database
	images  map[digest.Digest]*entry
	names   map[string]digest.Digest      // by canonical name with tag or digest
	indexes map[string]ocispec.Descriptor // by canonical name: what it stands for where that is an index, of which the image is one platform
	damaged map[digest.Digest]error       // records whose blobs are missing or damaged
	ghosts  map[digest.Digest]*entry      // removed images on which containers still stand: a commit of those needs the blobs
	held    map[digest.Digest]int         // by how many builds an image is used

	// Of a rehearsal: removals change the index only, and users knows the containers.
	rehearses bool
	users     func(digest.Digest) []ContainerUse

	settler settler

	work    sync.Mutex    // guards all below
	busy    int           // verbs under way whose blobs and layers no record names yet
	garbage bool          // something is to be collected when none is busy
	calm    chan struct{} // closed when none is busy any more, and made anew
}

// Configure replaces the configuration of registries and the numbers of layers fetched by all pulls and sent by each push at once (0: 3 and 5), for
// pulls, pushes and logins that begin afterwards; how many are fetched at once changes for those under way, too.
func (s *Service) Configure(c registry.Config, downloads, uploads int) error {
	c.Streams = s.streams
	client, err := registry.New(c)
	if err != nil {
		return fmt.Errorf("configure registries: %w", err)
	}
	s.registry.Store(client)
	if downloads <= 0 {
		downloads = 3
	}
	if uploads <= 0 {
		uploads = 5
	}
	s.streams.SetLimit(downloads)
	s.uploads.Store(int64(uploads))
	return nil
}

// entry is an image with what only this package needs.
type entry struct {
	image  *Image
	layers []ocispec.Descriptor // of the manifest
	index  ocispec.Descriptor   // that it came in without a name, if it did: what a name stands for that is given to it by its ID
	step   digest.Digest        // as record.Step
}

// record is what the database knows of an image; the rest is in its blobs.
type record struct {
	Manifest   ocispec.Descriptor `json:"manifest"`
	Size       int64              `json:"size"`
	Parent     digest.Digest      `json:"parent,omitempty"`
	LastTagged time.Time          `json:"lastTagged,omitzero"`
	Index      ocispec.Descriptor `json:"index,omitzero"`    // as entry.index
	Step       digest.Digest      `json:"step,omitempty"`    // of the step of a build that made it of Parent, with all that the step depends on; empty for others
	Removed    bool               `json:"removed,omitempty"` // kept only for the containers that stand on it
}

// nameRecord is what the database knows of a name.
type nameRecord struct {
	ID    digest.Digest      `json:"id"`
	Index ocispec.Descriptor `json:"index,omitzero"` // as Service.indexes
}

const (
	records     db.Bucket[record]     = "image"
	nameRecords db.Bucket[nameRecord] = "image-name"
)

// Open reads the records, drops what a killed process left behind, and returns the service.
func Open(ctx context.Context, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Policy != "" { // better now than at the first pull
		if _, err := signature.ReadPolicy(o.Policy); err != nil {
			return nil, err
		}
	}
	store, err := content.Open(filepath.Join(o.Root, "content"))
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, content: store, log: o.Log, streams: registry.NewStreams(1), transfers: transfers{byID: map[digest.Digest]*transfer{}}, images: map[digest.Digest]*entry{}, names: map[string]digest.Digest{}, indexes: map[string]ocispec.Descriptor{}, damaged: map[digest.Digest]error{}, ghosts: map[digest.Digest]*entry{}, held: map[digest.Digest]int{}, calm: make(chan struct{}), settler: settler{turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}}
	if err := s.Configure(o.Registry, o.Downloads, o.Uploads); err != nil {
		return nil, errors.Join(fmt.Errorf("open images: %w", err), store.Close())
	}
	for _, step := range []func(context.Context) error{s.rebuild, s.load, s.recall, s.dropSignatures} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("open images: %w", err), store.Close())
		}
	}
	if err := s.collect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open images: %w", err), store.Close())
	}
	if len(s.damaged) == 0 { // a killed process may have written the records and not the index of them
		s.writeIndex()
	}
	if !o.Keep {
		s.settle(ctx)
	}
	return s, nil
}

// Close ends what is done in the background and releases the store; operations under way fail when their context ends.
func (s *Service) Close() error {
	s.settled()
	return s.content.Close()
}

// load fills the index from the database and the blobs.
func (s *Service) load(context.Context) error {
	recorded := map[digest.Digest]record{}
	err := s.o.DB.View(func(tx *db.Tx) error {
		for key, r := range records.All(tx) {
			if r.Err != nil {
				s.log.Error("image record is damaged", "image", key, "error", r.Err)
				s.damaged[digest.Digest(key)] = r.Err
				continue
			}
			recorded[digest.Digest(key)] = r.Value
		}
		for name, r := range nameRecords.All(tx) {
			if r.Err != nil {
				s.log.Error("image name is damaged", "name", name, "error", r.Err)
				continue
			}
			s.name(name, r.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, r := range recorded {
		e, err := s.decode(id, r)
		if lacking(err) {
			return fmt.Errorf("read image %s: %w", id, err)
		}
		if err != nil {
			s.log.Error("image is damaged", "image", id, "error", err)
			s.damaged[id] = err
			continue
		}
		if r.Removed {
			s.ghosts[id] = e
			continue
		}
		s.images[id] = e
	}
	for id := range s.images {
		s.rename(id)
	}
	return nil
}

// decode makes an entry of a record and its blobs.
func (s *Service) decode(id digest.Digest, r record) (*entry, error) {
	raw, err := s.content.ReadAll(id, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	data, err := s.content.ReadAll(r.Manifest.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(data, r.Manifest.MediaType)
	if err != nil {
		return nil, err
	}
	if m.Config.Digest != id || len(m.Layers) != len(config.RootFS.DiffIDs) {
		return nil, errdefs.New(errdefs.Internal, "manifest %s is of another image", r.Manifest.Digest)
	}
	i := &Image{ID: id, Config: config, RawConfig: raw, Manifest: r.Manifest, DiffIDs: config.RootFS.DiffIDs, Size: r.Size, Parent: r.Parent, LastTagged: r.LastTagged}
	if config.Created != nil {
		i.Created = *config.Created
	}
	return &entry{image: i, layers: m.Layers, index: r.Index, step: r.Step}, nil
}

// rename replaces an image by one with the names that the index now has for it. The caller holds mu or is Open.
func (s *Service) rename(id digest.Digest) {
	e, ok := s.images[id]
	if !ok {
		return
	}
	i := *e.image
	i.RepoTags, i.RepoDigests = nil, nil
	for name, target := range s.names {
		if target != id {
			continue
		}
		familiar, hasDigest := familiarize(name)
		if hasDigest {
			i.RepoDigests = append(i.RepoDigests, familiar)
		} else {
			i.RepoTags = append(i.RepoTags, familiar)
		}
	}
	slices.Sort(i.RepoTags)
	slices.Sort(i.RepoDigests)
	s.images[id] = &entry{image: &i, layers: e.layers, index: e.index, step: e.step}
}

// name has a name stand for what its record says. The caller holds mu or is Open.
func (s *Service) name(name string, r nameRecord) {
	s.names[name] = r.ID
	delete(s.indexes, name)
	if r.Index.Digest != "" {
		s.indexes[name] = r.Index
	}
}

// unname forgets a name. The caller holds mu.
func (s *Service) unname(name string) {
	delete(s.names, name)
	delete(s.indexes, name)
}

// publication is an image that a transaction makes visible, or gives names.
type publication struct {
	id     digest.Digest
	record record
	names  []string           // canonical, to be moved here from wherever they are
	index  ocispec.Descriptor // what the names stand for, if that is an index
	blobs  [][]byte           // what record and index name that is not stored yet

	hold    *Hold // that keeps it from then on; nil: none
	instead bool  // the record takes the place of the image's, if it is here
}

// publish makes blobs durable and images visible, all at once, and returns the last one. An image that is already there keeps its record and gets the names. A name that is
// taken from an image leaves it dangling.
func (s *Service) publish(all ...publication) (*Image, error) {
	brings := false // otherwise the images are here and only get names
	for _, p := range all {
		for _, b := range p.blobs {
			if _, err := s.content.Put(b); err != nil {
				return nil, err
			}
		}
		brings = brings || p.record.Manifest.Digest != "" || len(p.blobs) > 0
	}
	if brings {
		if err := s.content.Sync(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]*entry, len(all))
	for n := range all {
		var err error
		if entries[n], err = s.complement(&all[n]); err != nil {
			return nil, err
		}
	}
	err := s.o.DB.Update(func(tx *db.Tx) error {
		for _, p := range all {
			for _, name := range p.names {
				if err := nameRecords.Put(tx, name, nameRecord{p.id, p.index}); err != nil {
					return err
				}
			}
			if err := records.Put(tx, p.id.String(), p.record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	changed := map[digest.Digest]bool{}
	for n, p := range all {
		s.images[p.id] = entries[n]
		p.hold.keep(p.id)
		delete(s.damaged, p.id)
		delete(s.ghosts, p.id)
		changed[p.id] = true
		for _, name := range p.names {
			changed[s.names[name]] = true
			s.name(name, nameRecord{p.id, p.index})
		}
	}
	for id := range changed {
		s.rename(id)
	}
	s.writeIndex()
	return s.images[all[len(all)-1].id].image, nil
}

// complement has a publication say what is already known of its image, and returns the image. The caller holds mu.
func (s *Service) complement(p *publication) (*entry, error) {
	e, here := s.images[p.id]
	if here && !p.instead {
		index := p.record.Index
		if index.Digest == "" {
			index = e.index
		}
		p.record = record{Manifest: e.image.Manifest, Size: e.image.Size, Parent: e.image.Parent, LastTagged: e.image.LastTagged, Index: index, Step: e.step}
	}
	if len(p.names) > 0 {
		p.record.LastTagged = time.Now().UTC()
	}
	if !here && p.record.Manifest.Digest == "" {
		return nil, errdefs.New(errdefs.NotFound, "No such image: %s", p.id)
	}
	return s.decode(p.id, p.record)
}

// begin says that blobs and layers come in that no record names yet: they are not collected before the end that it returns, which collects those that
// were left without a record.
func (s *Service) begin() (end func(context.Context)) { return s.hold(true) }

// hold keeps everything from being collected until the end that it returns. litters says that there may be garbage then.
func (s *Service) hold(litters bool) (end func(context.Context)) {
	s.work.Lock()
	defer s.work.Unlock()
	s.busy++
	return func(ctx context.Context) {
		s.work.Lock()
		if s.busy--; s.busy == 0 {
			close(s.calm)
			s.calm = make(chan struct{})
		}
		s.garbage = s.garbage || litters
		due := s.garbage && s.busy == 0
		s.work.Unlock()
		defer s.stir()
		if !due {
			return
		}
		if err := s.collect(context.WithoutCancel(ctx)); err != nil {
			s.log.Error("collect garbage", "error", err)
		}
	}
}

// collect deletes blobs and layers that no record names, unless a verb is under way, in which case its end will.
func (s *Service) collect(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.busy > 0 {
		s.garbage = true
		return nil
	}
	s.garbage = true // for the end of the next verb, should this come to nothing
	if _, err := s.content.DropPartials(content.PartialLife); err != nil {
		return err
	}
	if err := s.content.Sweep(); err != nil {
		return err
	}
	if len(s.damaged) > 0 {
		return nil // what belongs to a damaged record cannot be told from garbage
	}
	if err := s.layToRest(); err != nil {
		return err
	}
	blobs, layers, told := s.named()
	if !told {
		return nil
	}
	all, err := s.content.Digests()
	if err != nil {
		return err
	}
	for _, d := range all {
		if !blobs[d] {
			if err := errors.Join(s.content.Delete(d), s.forgetKept(d)); err != nil {
				return err
			}
			s.acquit(d)
		}
	}
	unpacked, err := s.o.Snapshots.Layers(ctx)
	if err != nil {
		return err
	}
	s.own.Range(func(key, used any) bool {
		if !used.(bool) {
			s.dropOwn(ctx, key.(string))
		}
		return true
	})
	swept := s.o.Snapshots.Sweep(ctx)
	for _, l := range unpacked {
		if layers[l.Key] {
			continue
		}
		if err := s.o.Snapshots.RemoveLayer(ctx, l.Key); err != nil && !errdefs.Is(err, errdefs.Conflict) {
			return err
		}
	}
	s.garbage = swept != nil
	return swept
}

// named returns the blobs and the keys of layers that records name. Where told is false, something that cannot be read, now or ever, may name more, and what else there is cannot be told from garbage.
func (s *Service) named() (blobs, layers map[digest.Digest]bool, told bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	blobs, layers, told = map[digest.Digest]bool{}, map[digest.Digest]bool{}, true
	for id, e := range joined(s.images, s.ghosts) {
		blobs[id] = true
		blobs[e.image.Manifest.Digest] = true
		for _, l := range e.layers {
			blobs[l.Digest] = true
		}
		for i, d := range e.image.DiffIDs {
			layers[d] = true
			layers[chainID(e.image.DiffIDs[:i+1])] = true
		}
	}
	for _, e := range s.images {
		if e.index.Digest != "" {
			told = s.keep(blobs, e.index, 0) && told
		}
	}
	for _, d := range s.indexes {
		told = s.keep(blobs, d, 0) && told
	}
	for d := range blobs { // what a blob is made anew of may be another image's, where a layer depends on those below it
		if s.content.Whole(d) {
			continue
		}
		r, err := s.content.Recipe(d)
		if err == nil {
			layers[r.Layer] = true
			_ = r.Close() // read only
		}
		var unread *fs.PathError // else it is damaged, and makes nothing of any layer
		told = told && !errors.As(err, &unread)
	}
	return blobs, layers, told
}

func joined(maps ...map[digest.Digest]*entry) iter.Seq2[digest.Digest, *entry] {
	return func(yield func(digest.Digest, *entry) bool) {
		for _, m := range maps {
			for id, e := range m {
				if !yield(id, e) {
					return
				}
			}
		}
	}
}

// layToRest drops the removed images on which no container stands any more.
func (s *Service) layToRest() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.ghosts {
		if s.stoodOn(e.image) {
			continue
		}
		if err := s.o.DB.Update(func(tx *db.Tx) error { return records.Delete(tx, id.String()) }); err != nil {
			return err
		}
		delete(s.ghosts, id)
	}
	return nil
}

// stoodOn reports whether a snapshot may stand on an image.
func (s *Service) stoodOn(i *Image) bool {
	if s.rehearses {
		return len(use(s.users, i.ID)) > 0
	}
	n := len(i.DiffIDs)
	return n > 0 && (s.o.Snapshots.InUse(i.DiffIDs[n-1]) || s.o.Snapshots.InUse(chainID(i.DiffIDs)))
}

// chainID names a stack of layers, bottom first, as the OCI image specification defines.
func chainID(diffIDs []digest.Digest) digest.Digest {
	chain := diffIDs[0]
	for _, d := range diffIDs[1:] {
		chain = digest.FromString(chain.String() + " " + d.String())
	}
	return chain
}

// announce publishes an event about an image.
func (s *Service) announce(action string, i *Image, name string) {
	if s.o.Events == nil {
		return
	}
	attributes := map[string]string{}
	for k, v := range i.Config.Config.Labels {
		attributes[k] = v
	}
	attributes["name"] = name
	s.o.Events.Publish(event.Event{Type: event.Image, Action: action, ID: i.ID.String(), Attributes: attributes})
}
