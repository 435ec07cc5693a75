"""How the embedded face model is made from MakeHuman's head (CC0) and the statistics of ICT-FaceKit (MIT).

Only `build.py` runs these modules; the package itself reads the finished `assets/face_model.npz`.
"""
