// Package archive applies tar streams to folders and makes tar streams of folders: image layers with their whiteouts, and the
// archives of `docker cp` and `docker export`. Every path is walked from a folder's descriptor, never by a joined string, so
// that neither a hostile archive nor a running container can lead it out of that folder.
package archive
