"""Descriptor strings after the documentation, tests and scripts of the field.

Templates are filled in, species changed to carbon and silicon, some cutoffs and sizes reduced.
Those marked ALIKE are written in the style of the examples there, not copied.
"""

GAP_DOCS = "libAtoms/GAP: documentation and tutorials"
HYBRID = "libAtoms/GAP: hybrid_md"
AUTOPLEX = "autoatml/autoplex: defaults and tests"
QUIP_TESTS = "libAtoms/QUIP: tests of gap_fit and quippy"
ALIKE = "in the style of the documentation of QUIP, GAP and workflow"
SCRIPTS = "public scripts that call quippy or gap_fit"

STRINGS: list[tuple[str, str]] = [
    (GAP_DOCS, "distance_2b cutoff=4.0 covariance_type=ard_se delta=0.5 theta_uniform=1.0 "
     "sparse_method=uniform add_species=T n_sparse=10"),
    (GAP_DOCS, "angle_3b cutoff=3.5 covariance_type=ard_se delta=0.5 theta_fac=0.5 add_species=T "
     "n_sparse=30 sparse_method=uniform"),
    (SCRIPTS, "soap cutoff=4.0 covariance_type=dot_product delta=0.2 zeta=2 atom_sigma=0.7 "
     "l_max=6 n_max=6 n_sparse=250 sparse_method=cur_points"),
    (SCRIPTS, "distance_Nb order=2 cutoff=5.0 covariance_type=ARD_SE theta_uniform=1.0 "
     "n_sparse=15 delta=1.0"),
    (SCRIPTS, "distance_Nb order=3 cutoff=2.5 covariance_type=ARD_SE theta_uniform=1.0 "
     "n_sparse=50 delta=0.004"),
    (ALIKE, "distance_2b cutoff=4"),
    (ALIKE, "distance_2b Z1=6 Z2=14 cutoff=4"),
    (ALIKE, "angle_3b Z_center=6 Z1=14 Z2=14 cutoff=3.0"),
    (ALIKE, "angle_3b Z=6 Z1=6 Z2=14 cutoff=3.5"),
    (ALIKE, "coordination cutoff=3.0 transition_width=0.5"),
    (ALIKE, "soap cutoff=3 l_max=4 n_max=4 atom_sigma=0.5 n_Z=2 Z={6 14} "),
    (ALIKE, "soap cutoff=3 l_max=4 n_max=4 normalize=T atom_sigma=0.5 n_Z=1 Z={6} "),
    (ALIKE, "soap cutoff=3 l_max=4 n_max=4 atom_sigma=0.5 n_Z=2 Z={6 14} n_species=2 "
     "species_Z={6 14}"),
    (ALIKE, "soap cutoff=3 l_max=3 n_max=3 atom_sigma=0.5 n_Z=1 Z=14 n_species=2 "
     "species_Z={6 14} average=F normalise=F"),
    (SCRIPTS, "soap l_max=6 n_max=12 atom_sigma=0.5 zeta=4 cutoff=5.0 "
     "cutoff_transition_width=1.0 central_weight=1.0 n_sparse=5000 delta=0.155 f0=0.0 "
     "covariance_type=dot_product sparse_method=CUR_POINTS"),
    (HYBRID, "distance_Nb order=2 n_sparse=20 cutoff=5.0 cutoff_transition_width=1.0 "
     "compact_clusters covariance_type=ard_se theta_uniform=1.0 sparse_method=uniform f0=0.0 "
     "add_species=T delta=1.0"),
    (HYBRID, "soap n_sparse=1000 n_max=10 l_max=4 cutoff=5.0 cutoff_transition_width=1.0 "
     "atom_sigma=0.5 add_species=True covariance_type=dot_product zeta=4 "
     "sparse_method=cur_points delta=3.0 "),
    (HYBRID, "distance_Nb order=2 n_sparse=20 cutoff=4.5 cutoff_transition_width=1.0 "
     "compact_clusters covariance_type=ard_se theta_uniform=1.0 sparse_method=uniform f0=0.0 "
     "add_species=F delta=2.0 Z={6 14}"),
    (AUTOPLEX, "distance_Nb order=2 f0=0.0 add_species=T cutoff=5.0 n_sparse=15 "
     "covariance_type=ard_se delta=2.0 theta_uniform=0.5 sparse_method=uniform "
     "compact_clusters=T"),
    (AUTOPLEX, "distance_Nb order=3 f0=0.0 add_species=T cutoff=3.25 n_sparse=100 "
     "covariance_type=ard_se delta=2.0 theta_uniform=1.0 sparse_method=uniform "
     "compact_clusters=T"),
    (AUTOPLEX, "soap add_species=T l_max=10 n_max=12 atom_sigma=0.5 zeta=4 cutoff=5.0 "
     "cutoff_transition_width=1.0 central_weight=1.0 n_sparse=6000 delta=1.0 f0=0.0 "
     "covariance_type=dot_product sparse_method=cur_points"),
    (AUTOPLEX, "distance_Nb order=2 f0=0.0 cutoff=6.5 cutoff_transition_width=0.5 n_sparse=15 "
     "covariance_type=ard_se delta=2.0 theta_uniform=2.0 sparse_method=uniform "
     "compact_clusters=T"),
    (AUTOPLEX, "distance_2b add_species=T cutoff=3.0"),
    (AUTOPLEX, "distance_Nb order=3 add_species=T cutoff=3.0"),
    (ALIKE, "soap n_max=3 l_max=3 atom_sigma=0.5 cutoff=3.0 average n_species=2 "
     "species_Z={6 14}"),
    (ALIKE, "soap cutoff=4.0 l_max=4 n_max=4 atom_sigma=0.5 average n_Z=2 Z={6 14} "
     "n_species=2 species_Z={6 14}"),
    (ALIKE, "soap n_max=4 l_max=4 cutoff=5.0 atom_sigma=0.5 average=F n_species=2 "
     "species_Z={6 14} n_Z=2 Z={6 14}"),
    (QUIP_TESTS, "soap l_max=8 n_max=8 atom_sigma=0.5 zeta=4 cutoff=4.0 "
     "cutoff_transition_width=1.0 central_weight=1.0 n_sparse=500 delta=3.0 f0=0.0 "
     "covariance_type=dot_product sparse_method=cur_points"),
    (QUIP_TESTS, "soap cutoff=3 l_max=4 n_max=4 atom_sigma=0.5 n_Z=2 Z={1 6}"),
    (ALIKE, "distance_Nb order=2 cutoff=4.0"),
    (SCRIPTS, "soap cutoff=3.7 l_max=4 n_max=4 atom_sigma=0.5 n_Z=3 Z={13 6 14} n_species=3 "
     "species_Z={13 6 14} average=True"),
    (SCRIPTS, "soap cutoff=5.0 zeta=2 delta = 1.0 atom_sigma =1.0 l_max=8 n_max=10 n_Z=2 "
     "Z={6 14} n_species=2 species_Z={6 14}"),
    (SCRIPTS, "soap cutoff=5.5 cutoff_transition_width=0.5 n_max=9 l_max=9 atom_sigma=0.55 "
     "n_Z=1 n_species=4 species_Z={11, 12, 14, 6}"),
    (SCRIPTS, " soap cutoff=4.0 l_max=4 n_max=6 atom_sigma=0.5 n_Z=1 Z={6} "),
    (SCRIPTS, "soap cutoff=3 l_max=6 n_max=12 atom_sigma=0.1"),
    (SCRIPTS, "soap cutoff=4.0 cutoff_transition_width=2.0 n_max=4 l_max=12 delta=0.05 "
     "atom_sigma=0.8 zeta=2 n_sparse=200 normalise=T sparse_method=cur_points add_species "
     "covariance_type=dot_product"),
    (SCRIPTS, "soap cutoff=3.3 cutoff_transition_width=0.0 atom_sigma=0.4 n_max =9 l_max=6"),
    (SCRIPTS, "soap add_species = T l_max = 4 n_max = 8 atom_sigma  = 0.5 cutoff  = 3.5 "
     "cutoff_transition_width  = 0.5 central_weight = 1.0"),
    (SCRIPTS, "soap central_weight=1.0  covariance_sigma0=0.0 atom_sigma=0.3 cutoff=4.0 n_max=6 "
     "l_max=4 n_species=2 species_Z={ 6 14 } Z=14"),
    (SCRIPTS, "soap average=T l_max=6 n_max=12 atom_sigma=0.5                               "
     "cutoff=5.0 cutoff_transition_width=1.0                               central_weight=1.0"),
    (SCRIPTS, "soap average cutoff=4.0 l_max=3 n_max=3 atom_sigma=0.5 n_Z=2 Z={6, 14} "
     "n_species=2 species_Z={6, 14} nu_R=1 nu_S=1"),
    (SCRIPTS, "soap average cutoff=4.0 l_max=3 n_max=3 atom_sigma=0.5 n_Z=2 Z={6, 14} "
     "n_species=2 species_Z={6, 14} nu_R=2 nu_S=0"),
    (SCRIPTS, "average=F normalise=T soap cutoff_dexp=0 cutoff_rate=1.0 cutoff_scale=1.0 "
     "central_reference_all_species=F central_weight=1.0 covariance_sigma0=0.0 atom_sigma=0.5 "
     "cutoff=4.0 cutoff_transition_width=0.5 n_max=4 l_max=3 n_species=2 species_Z={ 6 14 } "
     "n_Z=2 Z={ 6 14 }"),
    (SCRIPTS, "soap central_reference_all_species=F normalise=F central_weight=0.5  "
     "covariance_sigma0=0.0 atom_sigma=0.4 cutoff=3.5 cutoff_transition_width=0.3 n_max=5 "
     "l_max=4 n_species=2 species_Z={6 14} Z=6"),
    (SCRIPTS, "soap cutoff=4.0 covariance_type=dot_product zeta=2 delta=0.25 atom_sigma=0.3 "
     "add_species=T n_max=12 l_max=6 n_sparse=4000 sparse_method=cur_points"),
    (SCRIPTS, "soap l_max=2 n_max=2 atom_sigma=0.5 zeta=4 cutoff=5.0 "
     "covariance_type=dot_product n_sparse=500 sparse_method=uniform delta=1"),
    (SCRIPTS, "soap l_max=4 n_max=4 atom_sigma=0.5 cutoff=4.0 radial_scaling=0.0 "
     "cutoff_transition_width=1.0 central_weight=1.0 n_sparse=2000 delta=1.0 "
     "covariance_type=dot_product zeta=4"),
    (SCRIPTS, "distance_2b  cutoff=4.5  n_sparse=50  sparse_method=uniform  delta=.001  "
     "covariance_type=ard_se theta_uniform=1.0  cutoff_transition_width=1.0  add_species"),
    (SCRIPTS, "distance_2b cutoff=4.4 cutoff_transition_width=1.0 delta=1.5988954444172057 "
     "n_sparse=20 sparse_method=uniform covariance_type=ARD_SE add_species=T "
     "theta_uniform=1.4866572134311494"),
    (SCRIPTS, "distance_2b add_species       = F cutoff = 4.0 Z1                = 6 "
     "Z2                = 14"),
    (SCRIPTS, "distance_Nb order=2 cutoff=3.7 covariance_type=ARD_SE theta_uniform=1 "
     "n_sparse=15 delta=0.5 add_species=F sparse_method=FILE sparse_file=1.input Z={14 14}"),
    (SCRIPTS, "distance_Nb order=2 cutoff=3.30"),
    (SCRIPTS, "angle_3b Z_center=6 Z1=14 Z2=6 cutoff=3.2 n_sparse=100 covariance_type=pp "
     "delta=0.01 theta_uniform=2.0 sparse_method=uniform add_species=F"),
    (SCRIPTS, "soap_turbo l_max=8 alpha_max=8 atom_sigma_r=0.5 atom_sigma_t=0.5  "
     "atom_sigma_r_scaling=0.0 atom_sigma_t_scaling=0.0 rcut_hard=5.7 rcut_soft=5.2 "
     "basis=poly3gauss scaling_mode=polynomial amplitude_scaling=1.0 n_species=1 species_Z=14 "
     "radial_enhancement=1 central_weight=1.0"),
    (SCRIPTS, "soap_turbo l_max=8 alpha_max={8} atom_sigma_r={0.5} atom_sigma_t={0.5} "
     "atom_sigma_r_scaling={0.0} atom_sigma_t_scaling={0.0} zeta=6 rcut_hard=4.7 rcut_soft=4.2 "
     'basis="poly3gauss" scaling_mode="polynomial" amplitude_scaling={1.0} n_species=1 '
     "species_Z=14 radial_enhancement={1} central_weight={1.0} delta=0.1 f0=0.0 "
     "covariance_type=dot_product"),
    (SCRIPTS, "soap_turbo l_max=8 alpha_max={8} atom_sigma_r={0.5} atom_sigma_t={0.5} \\"
     "                       atom_sigma_r_scaling={0.} atom_sigma_t_scaling={0.} zeta=4, "
     "rcut_hard=5.0 rcut_soft=4.5 basis=poly3gauss scaling_mode=polynomial add_species=F "
     "amplitude_scaling={1.0} n_species=1 species_Z={14} central_index=1 radial_enhancement=1 "
     "compress_mode=trivial central_weight={1.0}"),
    (SCRIPTS, "soap_turbo l_max=4 alpha_max={4 4} atom_sigma_r={0.2 0.2} atom_sigma_t={0.2 0.2} "
     "atom_sigma_r_scaling={0.1 0.1} atom_sigma_t_scaling={0.1 0.1} zeta=4 rcut_hard=4.0 "
     "rcut_soft=3.5 basis=poly3gauss scaling_mode=polynomial add_species=F "
     "amplitude_scaling={2.0 2.0} n_species=2 species_Z={6 14} central_index=1 "
     "radial_enhancement=1 central_weight={1.0 1.0}"),
    (SCRIPTS, "soap atom_sigma=0.5 n_max=3 l_max=3 cutoff=3.0 Z=6 n_species=3 species_Z='1 6 8'"),
    (SCRIPTS, "soap cutoff=4.25 cutoff_transition_width=0.0 atom_sigma=0.7 n_species=2 Z=14 "
     "species_Z={14 6} n_max=8 l_max=6"),
    (SCRIPTS, "soap cutoff=4.0 cutoff_transition_width=0.0 atom_sigma=0.25 n_max =4 l_max=6"),
    (SCRIPTS, "soap l_max=10 n_max=10 delta=0.5 atom_sigma=0.5 zeta=4 central_weight=1.0 f0=0.0 "
     "cutoff=4.0 cutoff_transition_width=1.0 "
     "config_type_n_sparse={isol:1:liq:2000:amorph:2000} covariance_type=dot_product "
     "sparse_method=CUR_POINTS add_species=T"),
    (SCRIPTS, "soap l_max=8 n_max=8 atom_sigma=0.5 cutoff=4 n_Z=3 Z={56 14 6} n_species=3 "
     "species_Z={56 14 6} average=T"),
    (SCRIPTS, " distance_Nb order=2 cutoff=5.5 n_sparse=25 covariance_type=ard_se  delta=1.0 "
     "theta_uniform=2.5 sparse_method=uniform compact_clusters=True "),
    (SCRIPTS, "distance_2b Z1=6 Z2=14 cutoff=5.5 n_sparse=40 covariance_type=ard_se delta=0.5 "
     "theta_uniform=0.5 sparse_method=uniform add_species=F "),
    (SCRIPTS, "distance_2b cutoff=5.5 covariance_type=ard_se add_species=T delta=.6 "
     "theta_uniform=1 n_sparse=20 sparse_method=uniform "),
    (SCRIPTS, "soap_turbo l_max=6 alpha_max={6} atom_sigma_r={0.25} atom_sigma_t={0.25} "
     "atom_sigma_r_scaling={ 0.0} atom_sigma_t_scaling={0.0} zeta=4 rcut_hard=3.0 rcut_soft=2.5 "
     'delta=1.0 basis="poly3" scaling_mode="polynomial"  amplitude_scaling={1.0}  n_species=1 '
     'species_Z={14} add_species=F compress_mode="trivial" radial_enhancement=1 '
     "central_weight={1.0}  covariance_type=dot_product "),
    (SCRIPTS, "soap_turbo l_max=3 alpha_max={8 8 8} atom_sigma_r={0.5 0.5 0.5} "
     "atom_sigma_t={0.5 0.5 0.5} atom_sigma_r_scaling={0. 0. 0.} "
     "atom_sigma_t_scaling={0. 0. 0.} zeta=4 rcut_soft=3. rcut_hard=4. basis=poly3gauss "
     "scaling_mode=polynomial amplitude_scaling={1.0 1.0 1.0} n_species=3 species_Z={11 14 6} "
     "radial_enhancement=1 central_index=2 central_weight={1.0 1.0 1.0} add_species=F "
     "n_sparse=2000  delta=0.1 f0=0.0 covariance_type=dot_product sparse_method=cur_points"),
    (SCRIPTS, "soap_turbo l_max=4 alpha_max={4 4 4 4 4 4} "
     "atom_sigma_r={0.5 0.5 0.5 0.5 0.5 0.5} atom_sigma_t={0.5 0.5 0.5 0.5 0.5 0.5} "
     "atom_sigma_r_scaling={0.0 0.0 0.0 0.0 0.0 0.0} "
     "atom_sigma_t_scaling={0.0 0.0 0.0 0.0 0.0 0.0} rcut_hard=3.7 rcut_soft=3.2 "
     "basis=poly3gauss scaling_mode=polynomial add_species=F "
     "amplitude_scaling={1.0 1.0 1.0 1.0 1.0 1.0} radial_enhancement=1 compress_mode=trivial "
     "central_weight={1. 1. 1. 1. 1. 1.} species_Z={6 8 16 1 14 17} n_species=6 "
     "central_index=1"),
    # Refused: no `cutoff`, no `n_max`, ...; a molecule that is none.
    (SCRIPTS, "soap cutoff=5.0"),
    (SCRIPTS, "soap atom_sigma=0.75"),
    (ALIKE, "soap_turbo l_max=8 species_Z=14"),
    (ALIKE, "general_monomer cutoff=3.0 signature={8 1 1}"),
]  # fmt: skip
