package container

import (
	"fmt"

	"gantry/errdefs"
)

// State is where a container is in its life; the words are Docker's.
type State string

// The states of a container.
const (
	Created    State = "created"
	Running    State = "running"
	Paused     State = "paused"
	Restarting State = "restarting"
	Exited     State = "exited"
	Dead       State = "dead"
	Removing   State = "removing"
)

// alive reports whether there is a process.
func (s State) alive() bool { return s == Running || s == Paused }

// verb is something that changes a container's state.
type verb string

const (
	onStart   verb = "start"
	onExit    verb = "exit"
	onRestart verb = "wait for the restart of"
	onPause   verb = "pause"
	onUnpause verb = "unpause"
	onRemove  verb = "remove"
	onFail    verb = "give up"
)

// transitions is the whole life of a container: state and verb to next state. What is not here is not possible.
var transitions = map[State]map[verb]State{
	Created:    {onStart: Running, onRemove: Removing, onFail: Created},
	Running:    {onPause: Paused, onExit: Exited, onRestart: Restarting},
	Paused:     {onUnpause: Running, onExit: Exited, onRestart: Restarting},
	Restarting: {onStart: Running, onExit: Exited, onRestart: Restarting, onFail: Exited, onRemove: Removing},
	Exited:     {onStart: Running, onRemove: Removing, onFail: Exited, onRestart: Restarting},
	Dead:       {onRemove: Removing},
	Removing:   {onRemove: Removing, onFail: Dead},
}

// on returns the state after the verb, or a Conflict error in the words of docker.
func (s State) on(v verb, id string) (State, error) {
	if next, ok := transitions[s][v]; ok {
		return next, nil
	}
	switch {
	case v == onStart && s == Paused:
		return s, errdefs.New(errdefs.Conflict, "cannot start a paused container, try unpause instead")
	case v == onStart && s == Running:
		return s, errdefs.New(errdefs.NotModified, "container %s is already running", id)
	case v == onStart:
		return s, errdefs.New(errdefs.Conflict, "container is marked for removal and cannot be started")
	case v == onPause && s == Paused:
		return s, errdefs.New(errdefs.Conflict, "Container %s is already paused", id)
	case v == onPause && s == Restarting:
		return s, errdefs.New(errdefs.Conflict, "Container %s is restarting, wait until the container is running", id)
	case v == onPause:
		return s, errdefs.New(errdefs.Conflict, "Container %s is not running", id)
	case v == onUnpause:
		return s, errdefs.New(errdefs.Conflict, "Container %s is not paused", id)
	case v == onRemove:
		return s, errdefs.New(errdefs.Conflict, "container is %s: stop the container before removing or force remove", s)
	default:
		return s, errdefs.New(errdefs.Conflict, "%s", fmt.Sprintf("cannot %s container %s in state %s", v, id, s))
	}
}
