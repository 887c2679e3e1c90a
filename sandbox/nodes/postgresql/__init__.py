"""PostgreSQL under repmgr behind Pgpool, in containers on real nodes.

`image` builds the images from Debian's packages. `scripts` take the place of those of Bitnami's images.
"""
